"""Agents that plugins bring and agents behind a URL."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from carapace_cron.errors import AddressNotAllowed, NotFound, Unavailable, WorkStopped
from carapace_cron.gateway.hookspecs import Agent
from carapace_cron.gateway.testing import Answered, House, Wire
from carapace_cron.hookspecs import hookimpl
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import CallFailed, Outbound
from carapace_cron.ports.host import AgentCall, AgentReply

OpenHouse = Callable[..., Awaitable[House]]
BY_URL = {
    "agents": {
        "remote": {
            "url": "http://127.0.0.1:9/agent", "headers": {"Authorization": "Bearer hunter2"},
            "timeout_seconds": 7,
        }
    }
}


class Agents:
    """A plugin that brings the agents it was given."""

    def __init__(self, agents: Mapping[str, Any]) -> None:
        self._agents = agents

    @hookimpl
    def register_agents(self) -> Mapping[str, Agent]:
        return self._agents


def call(agent: str, *arguments: str) -> AgentCall:
    return AgentCall(agent, arguments, "acme", "alice", "run_1", {"jobId": "job_1", "attempt": 1})


async def test_a_plugins_agent_gets_the_call_and_its_reply_comes_back(open_house: OpenHouse) -> None:
    async def report(call: AgentCall) -> AgentReply:
        return AgentReply(f"{call.user_id}: {call.arguments}", "degraded", "half the data")

    house = await open_house(plugins={"hello": Agents({"generate-report": report})})
    assert house.gateway.agents() == ("generate-report",)
    reply = await house.gateway.run_agent(call("generate-report", "--daily"))
    assert reply == AgentReply("alice: ('--daily',)", "degraded", "half the data")


async def test_a_text_is_a_success(open_house: OpenHouse) -> None:
    async def report(call: AgentCall) -> str:
        return "done"

    house = await open_house(plugins={"hello": Agents({"generate-report": report})})
    assert await house.gateway.run_agent(call("generate-report")) == AgentReply("done")


async def test_an_agent_that_breaks_is_a_failure_with_an_id(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(call: AgentCall) -> str:
        raise RuntimeError("hunter2")

    async def odd(call: AgentCall) -> Any:
        return 7

    house = await open_house(plugins={"hello": Agents({"breaks": breaks, "odd": odd})})
    with caplog.at_level(logging.ERROR):
        reply = await house.gateway.run_agent(call("breaks"))
    assert reply.status == "failure"
    assert reply.error is not None
    assert "hunter2" not in reply.error
    assert reply.error.split()[-1] in caplog.text
    odd_reply = await house.gateway.run_agent(call("odd"))
    assert odd_reply.error == "agent odd answered a int: expected a text or an AgentReply"


async def test_cancelling_the_call_stops_the_agent(open_house: OpenHouse) -> None:
    stopped = asyncio.Event()

    async def endless(call: AgentCall) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    house = await open_house(plugins={"hello": Agents({"endless": endless})})
    running = asyncio.create_task(house.gateway.run_agent(call("endless")))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopped.is_set()


async def test_an_unknown_agent_is_named_with_those_there_are(open_house: OpenHouse) -> None:
    house = await open_house(settings=BY_URL)
    with pytest.raises(NotFound, match='no agent "nobody" here: expected one of remote'):
        await house.gateway.run_agent(call("nobody"))


async def test_cancelling_the_call_closes_the_connection_of_an_agent_by_url(open_house: OpenHouse) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        while await reader.read(4096):
            pass
        gone.set()
        writer.close()

    client = Outbound(AllowList.parse("127.0.0.0/8"))
    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/agent"
        house = await open_house(settings={"agents": {"remote": {"url": url}}}, wire=client)
        running = asyncio.create_task(house.gateway.run_agent(call("remote")))
        await asyncio.wait_for(asked.wait(), 5)
        running.cancel()
        with pytest.raises(WorkStopped) as stopped:
            await running
        await asyncio.wait_for(gone.wait(), 5)
    await client.close()
    assert stopped.value.how == {"connection": "closed"}


async def test_an_agent_by_url_is_sent_the_command_as_json(open_house: OpenHouse) -> None:
    wire = Wire(Answered(body=b'{"output": "42 rows", "status": "success"}'))
    house = await open_house(settings=BY_URL, wire=wire)
    reply = await house.gateway.run_agent(call("remote", "--since", "last week", ""))
    assert reply == AgentReply("42 rows")
    (sent,) = wire.sent
    assert (sent.method, sent.url, sent.timeout_seconds) == ("POST", "http://127.0.0.1:9/agent", 7)
    assert sent.trusted_origin
    assert sent.headers == {
        "Content-Type": "application/json", "Idempotency-Key": "run_1", "Authorization": "Bearer hunter2",
    }
    assert json.loads(sent.body or b"") == {
        "agent": "remote",
        "arguments": ["--since", "last week", ""],
        "command": "remote --since 'last week' ''",
        "tenant": "acme",
        "userId": "alice",
        "idempotencyKey": "run_1",
        "metadata": {"jobId": "job_1", "attempt": 1},
    }


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ("plain words", AgentReply("plain words")),
        ("", AgentReply("")),
        ('{"other": 1}', AgentReply('{"other": 1}')),
        ("[1, 2]", AgentReply("[1, 2]")),
        ('{"output": "x", "status": "degraded"}', AgentReply("x", "degraded")),
        ('{"output": "x", "status": "failure", "error": "no data"}', AgentReply("x", "failure", "no data")),
        ('{"error": "no data"}', AgentReply("", "failure", "no data")),
        ('{"output": {"rows": 3}}', AgentReply('{"rows": 3}')),
        ('{"output": "x", "error": null}', AgentReply("x")),
        (
            '{"output": "x", "status": "fine"}',
            AgentReply(
                "", "failure", "agent remote answered status 'fine': expected success, degraded, failure"
            ),
        ),
        ('{"output": NaN}', AgentReply('{"output": NaN}')),
    ],
)
async def test_it_understands_json_and_takes_any_other_text(
    open_house: OpenHouse, body: str, reply: AgentReply
) -> None:
    house = await open_house(settings=BY_URL, wire=Wire(Answered(body=body.encode())))
    assert await house.gateway.run_agent(call("remote")) == reply


async def test_an_answer_that_was_cut_is_taken_as_text(open_house: OpenHouse) -> None:
    wire = Wire(Answered(body=b'{"output": "a long', truncated=True))
    house = await open_house(settings=BY_URL, wire=wire)
    assert (await house.gateway.run_agent(call("remote"))).output == '{"output": "a long'


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_a_service_that_may_recover_is_unavailable(open_house: OpenHouse, status: int) -> None:
    house = await open_house(settings=BY_URL, wire=Wire(Answered(status=status)))
    with pytest.raises(Unavailable, match=rf"agent remote answered {status} .*; expected 2xx"):
        await house.gateway.run_agent(call("remote"))


@pytest.mark.parametrize(("status", "shown"), [(404, "404 Not Found"), (302, "302 Found"), (499, "499")])
async def test_any_other_status_is_a_failure(open_house: OpenHouse, status: int, shown: str) -> None:
    house = await open_house(settings=BY_URL, wire=Wire(Answered(status=status, body=b"see here")))
    reply = await house.gateway.run_agent(call("remote"))
    assert reply == AgentReply("see here", "failure", f"agent remote answered {shown}; expected 2xx")


async def test_no_answer_is_unavailable_and_a_refusal_stays_one(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the agent is, the log has: the tenant is not told."""
    wire = Wire(CallFailed("POST http://127.0.0.1:9/agent gave no whole answer within 7 s"))
    house = await open_house(settings=BY_URL, wire=wire)
    with pytest.raises(Unavailable, match=r"^agent remote gave no answer$"):
        await house.gateway.run_agent(call("remote"))
    assert "POST http://127.0.0.1:9/agent gave no whole answer within 7 s" in caplog.text
    wire.answer = AddressNotAllowed("address not allowed")
    with pytest.raises(AddressNotAllowed):
        await house.gateway.run_agent(call("remote"))


async def test_what_the_operator_configured_wins_over_a_plugin(open_house: OpenHouse) -> None:
    async def imposter(call: AgentCall) -> str:
        return "imposter"

    wire = Wire(Answered(body=b"the real one"))
    house = await open_house(settings=BY_URL, wire=wire, plugins={"hello": Agents({"remote": imposter})})
    assert (await house.gateway.run_agent(call("remote"))).output == "the real one"
    record = next(one for one in house.gateway.plugins() if one.id == "hello")
    assert record.refused == ('agent "remote" refused: gateway has one of that name',)


async def test_the_settings_show_no_secret(open_house: OpenHouse) -> None:
    house = await open_house(settings=BY_URL | {"plugins": {"x": {"password": "hunter2"}}})
    assert "hunter2" not in repr(house.gateway.settings)
    assert "hunter2" not in str(house.gateway.settings)
