from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from carapace_cron.errors import InvalidValue, NotFound, Unavailable, WorkStopped
from carapace_cron.ports.host import AgentCall, AgentReply
from carapace_cron.runners.agent_command import AgentCommandRunner, parse_agent_command


class HostWithAgents:
    """As much of a host as the runner uses: `generate-report` answers what the test says."""

    data_dir = Path("unused")

    def __init__(self, reply: AgentReply | Exception | None = None) -> None:
        self.reply = reply or AgentReply("done")
        self.calls: list[AgentCall] = []

    def agents(self) -> Collection[str]:
        return {"generate-report", "summarise"}

    async def run_agent(self, call: AgentCall) -> AgentReply:
        self.calls.append(call)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


@pytest.mark.parametrize(
    ("command", "name", "arguments"),
    [
        ("agent: generate-report", "generate-report", ()),
        ("agent:generate-report", "generate-report", ()),
        ("agent:   a.b_c-1   x   y  ", "a.b_c-1", ("x", "y")),
        ("agent: a --daily --to=ops", "a", ("--daily", "--to=ops")),
        ("agent: a 'two words' \"and two\"", "a", ("two words", "and two")),
        ("agent: a it\"'\"s", "a", ("it's",)),
        ("agent: a ''", "a", ("",)),
        ("agent: a $HOME `id` $(id) ; | & > * ~ \\n", "a",
         ("$HOME", "`id`", "$(id)", ";", "|", "&", ">", "*", "~", "\\n")),
        ("agent: a größer 日本", "a", ("größer", "日本")),
    ],
)  # fmt: skip
def test_it_splits_words_and_expands_nothing(command: str, name: str, arguments: tuple[str, ...]) -> None:
    assert parse_agent_command(command) == (name, arguments)


@pytest.mark.parametrize(
    "command",
    ["agent:", "agent:   ", "agent: -x", "agent: .a", "agent: A", "agent: a/b", "agent: ../a", "agent: 'a'",
     'agent: a"b"', "agent: a 'open", 'agent: a "open', "agent: a\nb", "agent: a\tb", "agent: a\0",
     "agent: a \u202eb",
     "agent: a \u00a0b", "agent: a \ud800", "agent: " + "a" * 101, "agent: a" + " b" * 65],
    ids=ascii,
)  # fmt: skip
def test_it_refuses_a_malformed_command(command: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        AgentCommandRunner(HostWithAgents()).check(command, None)
    assert refusal.value.field == "command"


def test_an_unknown_agent_is_refused_with_the_known_ones() -> None:
    runner = AgentCommandRunner(HostWithAgents())
    runner.check("agent: summarise all", None)
    with pytest.raises(InvalidValue, match=r'unknown agent "report".*\(generate-report, summarise\)'):
        runner.check("agent: report", None)


async def test_the_host_hears_who_asks_and_for_which_run(work) -> None:
    host = HostWithAgents()
    outcome = await AgentCommandRunner(host).run(work("agent: generate-report --title 'Week 7'"))
    assert (outcome.status, outcome.output, outcome.error) == ("success", "done", None)
    assert host.calls == [
        AgentCall(
            agent="generate-report",
            arguments=("--title", "Week 7"),
            tenant="acme",
            user_id="alice",
            idempotency_key="run_0123456789abcdefghijklmnop",
            metadata={
                "jobId": "job_1764547200000_0123456789abcdefghij",
                "runId": "run_0123456789abcdefghijklmnop",
                "attempt": 2,
                "scheduledFor": "2026-01-05T09:30:00Z",
            },
        )
    ]


async def test_an_agent_is_told_of_the_run_that_started_this_one_as_data(work, upstream, told) -> None:
    host = HostWithAgents()
    await AgentCommandRunner(host).run(work("agent: summarise all", upstream=upstream))
    [call] = host.calls
    assert call.metadata["upstream"] == told["upstream"] and call.arguments == ("all",)


@pytest.mark.parametrize(
    ("reply", "status", "error"),
    [
        (AgentReply("x"), "success", None),
        (AgentReply("x", "success", "ignored"), "success", None),
        (AgentReply("x", "degraded", "one source missing"), "degraded", "one source missing"),
        (AgentReply("x", "failure", "no\x1b[1m data\x00"), "failure", "no data"),
        (AgentReply("x", "failure"), "failure",
        'the agent "generate-report" said that it failed, without a reason'),
        (AgentReply("x", "done"), "failure",
         'the agent "generate-report" ended with status "done"; expected success, degraded, failure'),
    ],
)  # fmt: skip
async def test_the_agents_word_is_the_outcome(
    reply: AgentReply, status: str, error: str | None, work
) -> None:
    outcome = await AgentCommandRunner(HostWithAgents(reply)).run(work("agent: generate-report"))
    assert (outcome.status, outcome.error, outcome.output) == (status, error, "x")


async def test_what_an_agent_says_is_cleaned_and_bounded(work) -> None:
    host = HostWithAgents(AgentReply("\x1b]0;title\x07" + "a" * 100_000 + "\u202e"))
    outcome = await AgentCommandRunner(host).run(work("agent: generate-report"))
    assert len(outcome.output) <= 65_536 and outcome.output.startswith("aaa")


async def test_a_call_that_is_cancelled_ends_when_the_host_says_that_the_agent_has_stopped(work) -> None:
    host, may_end = HostWithAgents(), asyncio.Event()

    async def reluctant(call: AgentCall) -> AgentReply:
        host.calls.append(call)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await may_end.wait()
            raise
        raise AssertionError("it is never done")

    host.run_agent = reluctant  # type: ignore[method-assign]
    running = asyncio.create_task(AgentCommandRunner(host).run(work("agent: summarise")))
    while not host.calls:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,), timeout=0.05)
    assert not running.done()
    may_end.set()
    with pytest.raises(WorkStopped) as stopped:
        await running
    assert stopped.value.how == {"agent": "stopped"}


async def test_a_missing_agent_is_final_and_an_unreachable_one_is_not(work) -> None:
    gone = await AgentCommandRunner(HostWithAgents(NotFound("no such agent"))).run(work("agent: gone"))
    assert gone.permanent and 'unknown agent "gone"' in (gone.error or "")
    away = await AgentCommandRunner(HostWithAgents(Unavailable("it did not answer"))).run(
        work("agent: summarise")
    )
    assert away.error == 'the agent "summarise" cannot be reached: it did not answer'
    assert not away.permanent
