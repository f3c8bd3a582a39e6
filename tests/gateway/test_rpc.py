"""What the specification leaves to the server: parameters, errors, bounds."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from carapace_cron.errors import Conflict, Forbidden, InvalidValue, NotFound, Unavailable
from carapace_cron.gateway import rpc
from carapace_cron.gateway.hookspecs import Method, Params
from carapace_cron.gateway.methods import method_of
from carapace_cron.gateway.rpc import Rpc
from carapace_cron.model.actor import Actor

ALICE = Actor("acme", "alice", frozenset())
BAD_PARAMS = '"params" must be an array or an object'


def request(method: str, params: Any = None, request_id: Any = 1) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or [], "id": request_id})


async def answer_of(method: Method, params: Any = None) -> Any:
    answer = await Rpc({"it": method}).answer(request("it", params), ALICE)
    assert answer is not None
    return json.loads(answer)


def raising(error: BaseException) -> Method:
    async def method(actor: Actor, params: Params) -> Any:
        raise error

    return method


async def test_a_method_hears_who_asks_and_what() -> None:
    async def echo(actor: Actor, params: Params) -> Any:
        return [actor.user, params]

    assert (await answer_of(echo, {"actor": 1, "self": 2}))["result"] == ["alice", {"actor": 1, "self": 2}]
    assert (await answer_of(echo, [None]))["result"] == ["alice", [None]]
    assert (await answer_of(echo))["result"] == ["alice", []]


@pytest.mark.parametrize(
    ("params", "sentence", "field"),
    [
        ({}, 'missing parameter "jobId"', "jobId"),
        ([], 'missing parameter "jobId"', "jobId"),
        ({"jobId": 1, "job": 2}, 'unknown parameter "job": expected jobId, limit', "job"),
        ([1, 2, 3], "3 parameters given: expected at most 2 (jobId, limit)", None),
        ({"actor": 1, "jobId": 2}, 'unknown parameter "actor": expected jobId, limit', "actor"),
    ],
)
async def test_it_names_the_parameter_that_does_not_fit(
    params: Any, sentence: str, field: str | None
) -> None:
    async def get(actor: Actor, job_id: str, limit: int = 5) -> str:
        return job_id

    answer = await answer_of(method_of(get), params)
    assert answer["error"]["code"] == -32602
    assert answer["error"]["message"] == "Invalid params"
    assert answer["error"]["data"]["error"] == sentence
    assert answer["error"]["data"].get("field") == field


async def test_it_binds_params_by_name_and_by_position() -> None:
    async def get(actor: Actor, job_id: str, limit: int = 5) -> list[Any]:
        return [actor.user, job_id, limit]

    assert (await answer_of(method_of(get), {"jobId": "a", "limit": 1}))["result"] == ["alice", "a", 1]
    assert (await answer_of(method_of(get), {"jobId": "a"}))["result"] == ["alice", "a", 5]
    assert (await answer_of(method_of(get), ["a", 2]))["result"] == ["alice", "a", 2]


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (InvalidValue("bad minute", field="schedule"), -32602, "invalid"),
        (Forbidden("needs admin"), -32003, "forbidden"),
        (NotFound("no such job"), -32000, "not_found"),
        (Conflict("changed meanwhile"), -32000, "conflict"),
    ],
)
async def test_a_refusal_says_what_the_asker_can_mend(error: Exception, code: int, name: str) -> None:
    answer = await answer_of(raising(error))
    assert answer["error"]["code"] == code
    assert answer["error"]["data"]["error"] == str(error)
    assert answer["error"]["data"]["code"] == name


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("password=hunter2"), -32603),
        (TypeError("hunter2() takes no arguments"), -32603),
        (KeyError("hunter2"), -32603),
        (Unavailable("s3://hunter2 does not answer"), -32004),
    ],
)
async def test_an_unexpected_error_is_logged_and_only_its_id_is_told(
    error: Exception, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await answer_of(raising(error))
    assert answer["error"]["code"] == code
    assert "hunter2" not in json.dumps(answer)
    assert answer["error"]["data"]["errorId"] in caplog.text
    assert "hunter2" in caplog.text


async def test_a_result_that_is_not_json_is_an_internal_error() -> None:
    async def nan(actor: Actor, params: Params) -> Any:
        return float("nan")

    answer = await answer_of(nan)
    assert answer["error"]["code"] == -32603
    assert answer["id"] == 1


async def test_a_notification_that_fails_answers_nothing() -> None:
    text = json.dumps({"jsonrpc": "2.0", "method": "it"})
    assert await Rpc({"it": raising(RuntimeError("x"))}).answer(text, ALICE) is None


async def test_a_null_id_is_a_request_and_not_a_notification() -> None:
    answer = await Rpc({"it": raising(NotFound("gone"))}).answer(request("it", request_id=None), ALICE)
    assert answer is not None
    assert json.loads(answer)["id"] is None


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"jsonrpc": "1.0", "method": "it", "id": 1}, '"jsonrpc" must be "2.0"'),
        ({"jsonrpc": 2.0, "method": "it", "id": 1}, '"jsonrpc" must be "2.0"'),
        ({"method": "it", "id": 1}, '"jsonrpc" must be "2.0"'),
        ({"jsonrpc": "2.0", "id": 1}, '"method" must be a text'),
        ({"jsonrpc": "2.0", "method": None, "id": 1}, '"method" must be a text'),
        ({"jsonrpc": "2.0", "method": "it", "params": None, "id": 1}, BAD_PARAMS),
        ({"jsonrpc": "2.0", "method": "it", "params": "x", "id": 1}, BAD_PARAMS),
        ({"jsonrpc": "2.0", "method": "it", "auth": "x", "id": 1}, 'unknown member "auth" in the request'),
        ({"jsonrpc": "2.0", "method": "it", "id": True}, '"id" must be a text, a number or null'),
        ({"jsonrpc": "2.0", "method": "it", "id": [1]}, '"id" must be a text, a number or null'),
        ("it", "a request must be an object"),
        (None, "a request must be an object"),
    ],
)
async def test_it_says_why_a_request_is_none(bad: Any, sentence: str) -> None:
    answer = json.loads(await Rpc({}).answer(json.dumps(bad), ALICE) or "")
    assert answer["error"] == {"code": -32600, "message": "Invalid Request", "data": sentence}
    assert answer["id"] == (1 if isinstance(bad, dict) and type(bad["id"]) is int else None)


async def test_a_long_method_name_is_cut_in_the_answer() -> None:
    answer = json.loads(await Rpc({}).answer(request("m" * 100_000), ALICE) or "")
    assert answer["error"]["code"] == -32601
    assert len(json.dumps(answer)) < 300


async def test_a_batch_of_101_is_refused_as_a_whole() -> None:
    calls: list[Params] = []

    async def method(actor: Actor, params: Params) -> None:
        calls.append(params)

    batch = f"[{','.join([request('it')] * 101)}]"
    answer = json.loads(await Rpc({"it": method}).answer(batch, ALICE) or "")
    assert answer["error"]["data"] == "a batch of 101 requests: expected 1–100"
    assert calls == []


async def test_a_batch_runs_eight_at_a_time_and_answers_in_order() -> None:
    running = most = 0

    async def method(actor: Actor, params: Params) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(100 - params[0]):  # the first takes longest
            await asyncio.sleep(0)
        running -= 1
        return params[0]

    batch = f"[{','.join(request('it', [n], n) for n in range(100))}]"
    answers = json.loads(await Rpc({"it": method}).answer(batch, ALICE) or "")
    assert [answer["result"] for answer in answers] == list(range(100))
    assert most == 8


async def test_one_bad_element_does_not_spoil_the_others() -> None:
    async def fine(actor: Actor, params: Params) -> str:
        return "fine"

    methods = {"fine": fine, "bad": raising(RuntimeError("x"))}
    batch = f"[{request('bad', request_id=1)},7,{request('fine', request_id=3)}]"
    answers = json.loads(await Rpc(methods).answer(batch, ALICE) or "")
    assert [answer.get("result") for answer in answers] == [None, None, "fine"]


async def test_the_answers_of_a_batch_are_bounded_together() -> None:
    async def large(actor: Actor, params: Params) -> str:
        return "x" * (rpc.MAX_ANSWER_BYTES // 3)

    batch = f"[{','.join(request('it', request_id=n) for n in range(20))}]"
    text = await Rpc({"it": large}).answer(batch, ALICE) or ""
    codes = [answer.get("error", {}).get("code") for answer in json.loads(text)]
    assert codes.count(None) == 2
    assert codes.count(-32005) == 18
    assert len(text) < rpc.MAX_ANSWER_BYTES + 20_000
