"""Every parameter of every method with values of every wrong kind: an answer each time, never an accident."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from carapace_cron.api import envelope
from carapace_cron.api.methods import Methods, cron_methods
from carapace_cron.errors import Unavailable
from carapace_cron.model.actor import Actor

CODES = {"invalid", "not_found", "forbidden", "conflict", "address_not_allowed"}
INTERNAL_ERROR = -32603
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "largest": 2**63 - 1,
    "fraction": 1.5,
    "smallest fraction": 5e-324,
    "empty text": "",
    "blank": " \t",
    "text": "zzz",
    "digits": "12345678901234567890",
    "long text": "x" * 100_000,
    "controls": "a\x00b\x1b[31m\n\u202e",
    "astral": "\U0001f980" * 50,
    "path": "../../etc/passwd",
    "sql": "' OR 1=1 --",
    "percent": "%s%n{0}{x!r}",
    "first instant": "0001-01-01T00:00:00+14:00",
    "last instant": "9999-12-31T23:59:59-14:00",
    "empty list": [],
    "list": [None, True, 1, "a", [], {}],
    "long list": ["a"] * 5_000,
    "empty object": {},
    "object": {"a": {"b": [1, None]}, "": None, "\x00": 1},
    "deep": [[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]],
    "cursor of a huge run": "OTk5OTk5OTk5OTk5OTk5OTo5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ==",
    "cursor of a huge instant": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk6MQ==",
}
GOOD: dict[str, Any] = {
    "data": {"name": "N", "schedule": "@daily", "command": "date", "channelId": "gateway"},
    "updates": {"name": "M"},
    "schedule": "@daily",
    "tenant": "acme",
    "user": "eve",
    "scopes": ["jobs:read"],
    "since": "2026-01-30T11:00:00Z",
}
FIELDS = (
    "name", "description", "schedule", "cronExpression", "command", "channelId", "timezone", "enabled",
    "timeoutSeconds", "retry", "overlap", "catchUp", "catchUpWindowSeconds", "jitterSeconds", "startAt",
    "endAt", "maxRuns", "deleteAfterRun", "tags", "notify", "http", "idempotencyKey", "deadlineSeconds",
    "catchUpLimit", "catchUpOrder", "pauseAfterFailures", "after", "excludeDates", "holidays", "blackouts",
    "monitor",
)
INNER = {
    "retry": ("maxAttempts", "initialSeconds", "factor", "maxSeconds", "jitter", "on"),
    "http": ("method", "headers", "body", "expectStatus"),
    "monitor": ("graceSeconds", "channels", "notify", "reminders", "failureRate", "quiet"),
}


def parameters(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)[1:]


METHODS = {name: parameters(function) for name, function in cron_methods(Methods).items()}  # type: ignore[arg-type]  # only signatures are read


def requests(job_id: str, run_id: str) -> Iterator[tuple[str, Any]]:
    """Each parameter of each method with each value, the others as they should be."""
    good = {**GOOD, "jobId": job_id, "runId": run_id, "id": "tok_none", "monitorId": "none", "n": 1}
    for method, names in METHODS.items():
        needed = {name: good[name] for name in names if name in good}
        for name in names:
            for value in VALUES.values():
                yield method, {**needed, name: value}
        for value in VALUES.values():
            yield method, [value] * len(names)
            yield method, {"unknown": value}
            yield method, [value] * (len(names) + 1)


def jobs_with(value: Any) -> Iterator[dict[str, Any]]:
    """A good job with the value in the place of each field, of each inner one too."""
    job = GOOD["data"]
    for name in FIELDS:
        rest = {key: kept for key, kept in job.items() if name != "cronExpression" or key != "schedule"}
        yield {**rest, name: value}
    for outer, names in INNER.items():
        for name in names:
            yield {**job, "command": "https://example.com/", outer: {name: value}}
    yield {**job, "http": {"headers": {"X-A": value}}}
    yield {**job, "tags": [value]}
    yield {**job, "after": [value]}
    yield {**job, "after": [{"jobId": value}]}
    yield {**job, "http": {"expectStatus": [value]}}


def judge(request: Any, answer: Any) -> None:
    """Sound, refused in a sentence, or a fault of the parameters; never our own failure."""
    if "error" in answer:
        assert answer["error"]["code"] == -32602, (request, answer)
        return
    envelope = answer["result"]
    if not envelope["success"]:
        assert envelope["error"] and len(envelope["error"]) < 1_000, (request, envelope)
        assert envelope["code"] in CODES, envelope


async def ask_all(api: Any, asked: list[tuple[str, Any]], who: str) -> list[Any]:
    """In batches, as large as the door lets them be."""
    answers = []
    for one in _batches(asked):
        batch = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(one)
        ]
        response = await api.house.post(batch, who=who)
        answers.extend(await response.json())
    assert len(answers) == len(asked)
    return answers


def _batches(asked: list[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
    batch: list[tuple[str, Any]] = []
    room = 200_000
    for method, params in asked:
        size = len(repr(params).encode()) * 2 + 200
        if batch and (size > room or len(batch) == 100):
            yield batch
            batch, room = [], 200_000
        batch.append((method, params))
        room -= size
    yield batch


async def test_no_parameter_of_any_method_makes_it_fail(api: Any) -> None:
    job = await api.create()
    run = await api.data("run", [job["id"]])
    asked = [one for one in requests(job["id"], run["id"]) if len(repr(one)) < 200_000]
    for request, answer in zip(asked, await ask_all(api, asked, "ada"), strict=True):
        judge(request, answer)


async def test_no_field_of_a_job_makes_create_validate_or_update_fail(api: Any) -> None:
    job_id = (await api.create())["id"]
    asked: list[tuple[str, Any]] = []
    for value in VALUES.values():
        for data in jobs_with(value):
            asked.append(("carapace.cron.validate", [data]))
            asked.append(("carapace.cron.create", [data]))
            asked.append(("carapace.cron.update", [job_id, data]))
    for request, answer in zip(asked, await ask_all(api, asked, "alice"), strict=True):
        judge(request, answer)


@pytest.mark.parametrize("escape", ["\\ud800", "a\\udc00b"])
async def test_half_a_surrogate_pair_is_a_parse_error(api: Any, escape: str) -> None:
    text = f'{{"jsonrpc":"2.0","id":1,"method":"carapace.cron.get","params":["{escape}"]}}'
    answer = await (await api.house.post(text)).json()
    assert answer["error"]["code"] == -32700
    assert "half of a surrogate pair" in answer["error"]["data"]


async def test_what_fails_inside_is_told_by_a_fixed_sentence(api: Any, monkeypatch: Any, caplog: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("carapace_cron.services.jobs.Jobs.get", broken)
    answer = await api.ask("get", ["job_1769774400000_0123456789abcdefghij"])
    error = answer["error"]
    assert error["code"] == INTERNAL_ERROR and error["message"] == "Internal error"
    assert error["data"]["error"] == "this failed on our side; the gateway's log has the reason"
    assert "hunter2" not in str(answer)
    assert error["data"]["errorId"] in caplog.text and "hunter2" in caplog.text


async def test_a_store_that_is_away_is_said_without_its_inside(api: Any, monkeypatch: Any) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("s3://secret-bucket timed out")

    monkeypatch.setattr("carapace_cron.job_store.JobStore.create", away)
    assert await api.refusal("create", [GOOD["data"]]) == {
        "success": False,
        "error": "the gateway's store cannot be reached now, so it is not known whether anything changed: "
        "try again",
        "code": "unavailable",
    }


async def test_a_store_that_hangs_keeps_no_caller_waiting_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(envelope, "ANSWER_SECONDS", 0.05)

    async def hangs(actor: Actor) -> None:
        await asyncio.Event().wait()

    answer = await envelope.enveloped(hangs)(Actor("acme", "alice", frozenset()))
    assert (answer["success"], answer["code"]) == (False, "unavailable")
