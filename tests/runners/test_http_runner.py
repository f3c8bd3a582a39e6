from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from carapace_cron.errors import AddressNotAllowed, InvalidValue
from carapace_cron.model.job import HttpRequest
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.runners.http import HttpRunner

RUNNER = HttpRunner(Outbound(AllowList.parse("127.0.0.1")))


@pytest.mark.parametrize(
    ("command", "claimed"),
    [("http://example.com", True), ("HTTPS://example.com", True), ("Http://x", True), ("ftp://x", False),
     (" http://example.com", False), ("http:x", False), ("echo http://x", False)],
)  # fmt: skip
def test_it_claims_urls(command: str, claimed: bool) -> None:
    assert RUNNER.claims(command) is claimed


def test_it_refuses_urls_and_headers_that_it_would_not_send() -> None:
    RUNNER.check(
        "https://example.com/", HttpRequest(headers={"Authorization": "Bearer x", "User-Agent": "me"})
    )
    with pytest.raises(AddressNotAllowed):
        RUNNER.check("http://10.0.0.1/", None)
    with pytest.raises(InvalidValue) as refusal:
        RUNNER.check("https://example.com/", HttpRequest(headers={"X-Note": "a\r\nb"}))
    assert refusal.value.field == "http.headers.X-Note"
    for name in ("X-Carapace-Run-Id", "x-carapace-anything"):
        with pytest.raises(InvalidValue, match="cannot be set"):
            RUNNER.check("https://example.com/", HttpRequest(headers={name: "1"}))


async def test_it_gets_the_url_and_says_which_run_it_is(work, serving) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(text="the \x1b[31mreport\x1b[0m\u202e\r\n\tdone")

    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(f"{origin}/report?day=1"))
    assert (outcome.status, outcome.output, outcome.error) == ("success", "the report\n\tdone", None)
    assert outcome.metadata == {"httpStatus": 200}
    sent = seen[0].headers
    assert (seen[0].method, seen[0].path_qs) == ("GET", "/report?day=1")
    assert sent["User-Agent"].startswith("carapace-cron/")
    assert sent["Idempotency-Key"] == sent["X-Carapace-Run-Id"] == "run_0123456789abcdefghijklmnop"
    assert sent["X-Carapace-Job-Id"] == "job_1764547200000_0123456789abcdefghij"
    assert (sent["X-Carapace-Attempt"], sent["X-Carapace-Scheduled-For"]) == ("2", "2026-01-05T09:30:00Z")
    assert "Content-Type" not in sent


@pytest.mark.parametrize(
    ("body", "headers", "content_type"),
    [('{"a": 1}', {}, "application/json"), ("plain ü", {}, "text/plain; charset=utf-8"),
     ("a=b", {"content-type": "application/x-www-form-urlencoded"}, "application/x-www-form-urlencoded")],
)  # fmt: skip
async def test_it_sends_method_headers_and_body(
    body: str, headers: dict, content_type: str, work, serving
) -> None:
    async def handler(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        return web.Response(
            text=f"{request.method} {await request.text()} {request.headers['Content-Type']} {key}"
        )

    request = HttpRequest(method="POST", body=body, headers={**headers, "idempotency-key": "mine"})
    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(origin, http=request))
    assert outcome.output == f"POST {body} {content_type} mine"


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [("POST", None, True), ("PUT", None, True), ("PATCH", None, True), ("POST", "mine", False),
     ("GET", None, False), ("DELETE", None, False)],
)  # fmt: skip
async def test_a_server_is_told_of_the_run_that_started_this_one(
    method: str, body: str | None, sent: bool, work, serving, upstream, told
) -> None:
    seen: list[tuple[str, str | None, str]] = []

    async def handler(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((headers["X-Carapace-Caused-By"], headers.get("Content-Type"), await request.text()))
        return web.Response()

    request = HttpRequest(method=method, body=body)
    async with serving(handler) as origin:
        await RUNNER.run(work(origin, http=request, upstream=upstream))
    [(caused_by, content_type, text)] = seen
    assert caused_by == upstream["runId"]
    if sent:
        assert content_type == "application/json" and json.loads(text) == told
    else:
        assert text == (body or "")


@pytest.mark.parametrize(
    ("status", "expected", "ended"),
    [(200, (), "success"), (204, (), "success"), (299, (), "success"), (404, (), "failure"), (503, (),
     "failure"),
     (404, (404, 410), "success"), (200, (404, 410), "failure"), (302, (302,), "success")],
)  # fmt: skip
async def test_the_status_decides(status: int, expected: tuple[int, ...], ended: str, work, serving) -> None:
    async def handler(request: web.Request) -> web.Response:
        headers = {"Location": "http://10.0.0.1/"} if status == 302 else {}
        return web.Response(status=status, headers=headers)

    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(origin, http=HttpRequest(expect_status=expected)))
    assert (outcome.status, outcome.metadata["httpStatus"]) == (ended, status)


async def test_a_failure_names_request_answer_and_expectation_and_keeps_the_body(work, serving) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=503, text="come back later")

    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(f"{origin}/report?token=s3cret"))
        assert outcome.error == f"GET {origin}/report answered 503 Service Unavailable; expected 2xx"
        assert (outcome.output, outcome.permanent) == ("come back later", False)
        narrow = await RUNNER.run(
            work(f"{origin}/x", http=HttpRequest(method="PUT", expect_status=(200, 201)))
        )
        assert narrow.error == f"PUT {origin}/x answered 503 Service Unavailable; expected 200, 201"


async def test_a_long_answer_keeps_its_ends_and_says_that_it_was_cut(work, serving) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="a" * 2_000_000)

    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(origin))
    assert outcome.status == "success" and outcome.metadata["truncated"] is True
    assert len(outcome.output) <= 65_536 and "characters left out" in outcome.output


async def test_the_metadata_has_the_address_after_a_redirect(work, serving) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old":
            return web.Response(status=301, headers={"Location": "/new?token=s3cret"})
        return web.Response(text="moved")

    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(f"{origin}/old"))
    assert outcome.metadata == {"httpStatus": 200, "url": f"{origin}/new"}


async def test_what_is_refused_is_not_tried_again(work, serving) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})

    async with serving(handler) as origin:
        redirected = await RUNNER.run(work(origin))
    stored = await RUNNER.run(work("http://10.0.0.1/"))
    for outcome in (redirected, stored):
        assert (outcome.status, outcome.error, outcome.permanent) == ("failure", "address not allowed", True)
        assert outcome.output == ""


async def test_the_time_limit_is_a_failure_in_a_sentence(work, serving) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with serving(handler) as origin:
        outcome = await RUNNER.run(work(f"{origin}/slow", timeout_seconds=0.1))
    assert outcome.error == f"GET {origin}/slow gave no whole answer within 0.1 s"
    assert not outcome.permanent
