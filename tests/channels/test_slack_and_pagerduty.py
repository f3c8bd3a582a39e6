"""The channels `slack` and `pagerduty` against servers that answer as those two document it.

Stand-ins: the real ones cannot be had in a test. What they check of a request is what Slack's and
PagerDuty's pages say that they check.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from carapace_cron.channels.pagerduty import open_pagerduty
from carapace_cron.channels.slack import open_slack
from carapace_cron.clock import ManualClock
from carapace_cron.errors import ConfigurationError
from carapace_cron.model.notice import MonitorNotice, Notice
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.ports.channel import Channel, DeliveryFailed

MakeNotice = Callable[..., Notice]
KEY = "0123456789abcdef0123456789abcdef"


class Service:
    """`answer`: status, text and headers, in place of a yes."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer: tuple[int, str, dict[str, str]] | None = None
        self.url = ""

    def refusal(self) -> web.Response | None:
        if self.answer is None:
            return None
        status, text, headers = self.answer
        return web.Response(status=status, text=text, headers=headers)


class Slack(Service):
    """An incoming webhook."""

    async def handle(self, request: web.Request) -> web.Response:
        payload = json.loads(await request.read())
        if not _is_payload(payload):
            return web.Response(status=400, text="invalid_blocks")
        if (refusal := self.refusal()) is not None:
            return refusal
        self.got.append(payload)
        return web.Response(text="ok")


def _is_payload(payload: dict[str, Any]) -> bool:
    """Within the limits of docs.slack.dev/reference/block-kit/blocks."""
    limits = {"header": 150, "section": 3_000}
    sizes = [(one["type"], len(one["text"]["text"])) for one in payload["blocks"] if "text" in one]
    return 0 < len(payload["blocks"]) <= 50 and all(0 < size <= limits[kind] for kind, size in sizes)


class PagerDuty(Service):
    """Events v2, and the incidents that come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, list[str]] = {}  # dedup key → the summaries that were joined in the incident
        self.resolved: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        event = json.loads(await request.read())
        if (refusal := self.refusal()) is not None:
            return refusal
        errors = _faults(event)
        if errors:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return web.json_response(body, status=400)
        self.got.append(event)
        self._take(event)
        body = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return web.json_response(body, status=202)

    def _take(self, event: dict[str, Any]) -> None:
        key = event["dedup_key"]
        if event["event_action"] == "trigger":
            self.open.setdefault(key, []).append(event["payload"]["summary"])
        elif self.open.pop(key, None) is not None:
            self.resolved.append(key)


def _faults(event: dict[str, Any]) -> list[str]:
    faults = []
    if len(event.get("routing_key", "")) != 32:
        faults.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        faults.append("'event_action' is missing or blank")
    if not 0 < len(event.get("dedup_key", "")) <= 255:
        faults.append("'dedup_key' is too long")
    if event.get("event_action") == "trigger":
        payload = event["payload"]
        if not 0 < len(payload["summary"]) <= 1024 or not payload["source"]:
            faults.append("'payload.summary' is missing, blank or too long")
        if payload["severity"] not in ("critical", "error", "warning", "info"):
            faults.append("'payload.severity' is invalid")
    return faults


async def served(service: Slack | PagerDuty) -> TestServer:
    application = web.Application()
    application.router.add_post("/{path:.*}", service.handle)
    server = TestServer(application)
    await server.start_server()
    service.url = str(server.make_url("/services/T0/B0/S3CRET"))
    return server


@pytest.fixture
async def slack() -> AsyncIterator[Slack]:
    slack = Slack()
    server = await served(slack)
    yield slack
    await server.close()


@pytest.fixture
async def pagerduty() -> AsyncIterator[PagerDuty]:
    pagerduty = PagerDuty()
    server = await served(pagerduty)
    yield pagerduty
    await server.close()


@pytest.fixture
def to_slack(slack: Slack, clock: ManualClock) -> Channel:
    return open_slack(Outbound(AllowList.parse("")), clock)("ops", {"url": slack.url})


@pytest.fixture
def to_pagerduty(pagerduty: PagerDuty, clock: ManualClock) -> Channel:
    given = {"url": pagerduty.url, "routing_key": KEY}
    return open_pagerduty(Outbound(AllowList.parse("")), clock)("duty", given)


# Slack


async def test_slack_gets_blocks(slack: Slack, to_slack: Channel, make_notice: MakeNotice) -> None:
    await to_slack.send(make_notice(status="failure", success=False, error="exited with status 3"))
    [payload] = slack.got
    title, body, output = payload["blocks"]
    assert title["text"] == {"type": "plain_text", "text": "❌ Daily report: failure", "emoji": False}
    assert body["text"]["text"].endswith("failed after 1234ms.\n\nError:\nexited with status 3")
    assert output["elements"][0]["type"] == "rich_text_preformatted"
    assert output["elements"][0]["elements"] == [{"type": "text", "text": "42 orders"}]
    assert payload["text"] == "❌ Daily report: failure"
    assert (payload["unfurl_links"], payload["unfurl_media"]) == (False, False)


HOSTILE = "<!channel> <@U123> <https://evil.example|your bank> & *bold* @everyone"


async def test_nothing_in_a_text_is_slacks_own(
    slack: Slack, to_slack: Channel, make_notice: MakeNotice
) -> None:
    notice = make_notice(job_name=HOSTILE, error=HOSTILE, output=HOSTILE, status="failure", success=False)
    await to_slack.send(notice)
    [payload] = slack.got
    title, body, output = payload["blocks"]
    for text in (title["text"]["text"], body["text"]["text"], payload["text"]):
        assert "<" not in text and ">" not in text
        assert "&lt;!channel&gt;" in text
    assert {title["text"]["type"], body["text"]["type"]} == {"plain_text"}
    assert "mrkdwn" not in json.dumps(payload) and "link_names" not in payload
    assert output["elements"][0]["elements"][0]["text"] == HOSTILE  # letter for letter, read by nobody


LONG = ["x" * 20_000, "<" * 20_000, "&" * 2_900]


@pytest.mark.parametrize("text", LONG, ids=["letters", "signs", "not so many signs"])
async def test_a_long_text_is_cut_so_that_slack_takes_it(
    slack: Slack, to_slack: Channel, make_notice: MakeNotice, text: str
) -> None:
    await to_slack.send(
        make_notice(job_name=text[:300], error=text, output=text, status="failure", success=False)
    )
    assert len(slack.got) == 1


async def test_a_monitor_is_told_of_in_slack(
    slack: Slack, to_slack: Channel, monitor_notice: MonitorNotice
) -> None:
    await to_slack.send(monitor_notice)
    [payload] = slack.got
    assert [block["text"]["text"] for block in payload["blocks"]] == [
        "❌ Backup: down",
        "No ping came in time.",
    ]


REFUSALS = [
    (400, "invalid_payload", True),
    (403, "action_prohibited", True),
    (404, "no_service", True),
    (410, "channel_is_archived", True),
    (429, "rate_limited", False),
    (500, "rollup_error", False),
    (503, "<html>down</html>", False),
]


@pytest.mark.parametrize(("status", "word", "permanent"), REFUSALS)
async def test_slacks_refusal_is_told_in_its_word_and_only_a_final_one_is_final(
    slack: Slack, to_slack: Channel, make_notice: MakeNotice, status: int, word: str, permanent: bool
) -> None:
    slack.answer = (status, word, {"Retry-After": "30"} if status == 429 else {})
    with pytest.raises(DeliveryFailed) as failed:
        await to_slack.send(make_notice())
    assert failed.value.permanent is permanent
    assert failed.value.retry_after_seconds == (30 if status == 429 else None)
    assert f"Slack answered {status}" in str(failed.value)
    assert (f"({word})" in str(failed.value)) is not word.startswith("<")
    assert "S3CRET" not in str(failed.value)


# PagerDuty


async def test_a_failure_opens_an_incident_and_a_success_resolves_it(
    pagerduty: PagerDuty, to_pagerduty: Channel, make_notice: MakeNotice
) -> None:
    for number in range(3):
        notice = make_notice(f"{number}", status="failure", success=False, error="exited with status 3")
        await to_pagerduty.send(notice)
    [(key, summaries)] = pagerduty.open.items()
    assert len(summaries) == 3
    assert summaries[0].startswith("Daily report: failure. Cron job job_1764547200000_")
    payload = pagerduty.got[0]["payload"]
    assert payload["severity"] == "error"
    assert payload["timestamp"] == "2026-11-21T09:00:00Z"
    assert payload["custom_details"]["output"]["untrusted"] is True

    await to_pagerduty.send(make_notice("well"))
    assert (pagerduty.open, pagerduty.resolved) == ({}, [key])
    assert "payload" not in pagerduty.got[-1]


async def test_two_jobs_are_two_incidents(
    pagerduty: PagerDuty, to_pagerduty: Channel, make_notice: MakeNotice
) -> None:
    for job_id in ("job_1", "job_2"):
        await to_pagerduty.send(make_notice(job_id, job_id=job_id, status="failure", success=False))
    await to_pagerduty.send(make_notice("well", job_id="job_1"))
    assert list(pagerduty.open) == ["carapace-cron/job_2"]


async def test_a_monitors_incident_is_one_from_its_first_sign_to_its_end(
    pagerduty: PagerDuty, to_pagerduty: Channel, monitor_notice: MonitorNotice
) -> None:
    events = ("monitor.late", "monitor.down", "monitor.failure", "monitor.reminder")
    for event in events:
        await to_pagerduty.send(monitor_notice.evolve(id=event, event=event))
    assert [len(summaries) for summaries in pagerduty.open.values()] == [4]
    assert [one["payload"]["severity"] for one in pagerduty.got] == ["warning", "error", "error", "error"]
    await to_pagerduty.send(monitor_notice.evolve(id="up", event="monitor.up", success=True))
    assert pagerduty.open == {}


async def test_good_news_of_what_is_not_open_changes_nothing(
    pagerduty: PagerDuty, to_pagerduty: Channel, make_notice: MakeNotice
) -> None:
    await to_pagerduty.send(make_notice())
    assert (pagerduty.open, pagerduty.resolved) == ({}, [])


async def test_an_event_is_within_pagerdutys_limits_however_long_the_texts(
    pagerduty: PagerDuty, to_pagerduty: Channel, make_notice: MakeNotice
) -> None:
    text = "line\n" * 5_000
    await to_pagerduty.send(make_notice(job_name="x" * 2_000, error=text, status="failure", success=False))
    assert len(pagerduty.got) == 1


PAGERDUTYS_REFUSALS = [
    (400, '{"message": "Event object is invalid"}', True, "Event object is invalid"),
    (429, "", False, "429"),
    (500, "[]", False, "500"),
]


@pytest.mark.parametrize(("status", "body", "permanent", "said"), PAGERDUTYS_REFUSALS)
async def test_only_an_invalid_event_is_final(
    pagerduty: PagerDuty,
    to_pagerduty: Channel,
    make_notice: MakeNotice,
    status: int,
    body: str,
    permanent: bool,
    said: str,
) -> None:
    pagerduty.answer = (status, body, {})
    with pytest.raises(DeliveryFailed, match=said) as failed:
        await to_pagerduty.send(make_notice())
    assert failed.value.permanent is permanent
    assert KEY not in str(failed.value)


BAD = [
    (open_slack, {}, "missing url"),
    (open_slack, {"url": "slack://a/b/c"}, "expected an http:// or https:// URL"),
    (open_pagerduty, {}, "missing routing_key"),
    (open_pagerduty, {"routing_key": "S3CRET"}, "bad routing_key"),
    (open_pagerduty, {"routing_key": KEY, "severity": "bad"}, "bad severity"),
]


@pytest.mark.parametrize(("kind", "given", "sentence"), BAD)
def test_bad_settings_stop_the_start(
    kind: Callable[..., Any], given: dict[str, str], sentence: str, clock: ManualClock
) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        kind(Outbound(AllowList.parse("")), clock)("ops", given)
    assert "S3CRET" not in str(refused.value)
