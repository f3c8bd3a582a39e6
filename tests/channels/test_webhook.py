"""The webhook against a real HTTP server, through the gateway's own guarded client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from carapace_cron.channels.webhook import WebhookChannel, open_webhooks, signature, verify
from carapace_cron.clock import ManualClock
from carapace_cron.errors import ConfigurationError
from carapace_cron.model.notice import Notice
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.ports.channel import DeliveryFailed

MakeNotice = Callable[..., Notice]
SECRET = "correct horse battery staple"


class Receiver:
    """Keeps the requests it got; answers as the test says."""

    def __init__(self) -> None:
        self.requests: list[tuple[Mapping[str, str], bytes, str]] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.headers, await request.read(), request.method))
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    server = TestServer(application)
    await server.start_server()
    receiver.url = str(server.make_url("/hook/T0KEN"))
    yield receiver
    await server.close()


@pytest.fixture
def open_channel(clock: ManualClock) -> Callable[..., WebhookChannel]:
    def make(**settings: Any) -> WebhookChannel:
        channel = open_webhooks(Outbound(AllowList.parse("")), clock)("ops", settings)
        assert isinstance(channel, WebhookChannel)
        return channel

    return make


Open = Callable[..., WebhookChannel]


async def test_it_posts_the_notice_signed(
    receiver: Receiver, open_channel: Open, make_notice: MakeNotice, clock: ManualClock
) -> None:
    notice = make_notice(success=False, status="failure", error="exited with status 3", output="naïve <b>")
    await open_channel(url=receiver.url, secret=SECRET, headers={"X-Team": "ops"}).send(notice)

    [(headers, body, method)] = receiver.requests
    assert method == "POST"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Team"] == "ops"
    assert headers["Idempotency-Key"] == headers["X-Carapace-Delivery"] == notice.id
    assert headers["X-Carapace-Timestamp"] == str(int(clock.now().timestamp()))
    assert verify(headers, body, SECRET, clock.now())
    assert json.loads(body) == {
        "id": "notice-1",
        "event": "run.completed",
        "title": "Daily report: failure",
        "tenant": "acme",
        "userId": "alice",
        "channelId": "ops",
        "jobId": notice.job_id,
        "jobName": "Daily report",
        "runId": "run-of-notice-1",
        "status": "failure",
        "success": False,
        "error": "exited with status 3",
        "scheduledFor": "2026-11-21T09:00:00Z",
        "finishedAt": "2026-11-21T09:00:00Z",
        "attempt": 1,
        "durationMs": 1234,
        "output": {"type": "job_output", "untrusted": True, "text": "naïve <b>"},
    }


async def test_without_a_secret_it_signs_nothing(
    receiver: Receiver, open_channel: Open, make_notice: MakeNotice, clock: ManualClock
) -> None:
    await open_channel(url=receiver.url).send(make_notice())
    [(headers, body, _)] = receiver.requests
    assert "X-Carapace-Signature" not in headers
    assert not verify(headers, body, "", clock.now())


@pytest.mark.parametrize(("status", "permanent", "sentence"), [
    (302, True, "the webhook answered 302 Found; expected 2xx. Set url to where it redirects"),
    (304, True, "the webhook answered 304 Not Modified; expected 2xx. Set url to where it redirects"),
    (400, True, "the webhook answered 400 Bad Request; expected 2xx"),
    (401, True, "the webhook answered 401 Unauthorized; expected 2xx"),
    (403, True, "the webhook answered 403 Forbidden; expected 2xx"),
    (404, True, "the webhook answered 404 Not Found; expected 2xx"),
    (410, True, "the webhook answered 410 Gone; expected 2xx"),
    (422, True, "the webhook answered 422 Unprocessable Entity; expected 2xx"),
    (499, True, "the webhook answered 499; expected 2xx"),
    (408, False, "the webhook answered 408 Request Timeout; expected 2xx"),
    (425, False, "the webhook answered 425 Too Early; expected 2xx"),
    (429, False, "the webhook answered 429 Too Many Requests; expected 2xx"),
    (500, False, "the webhook answered 500 Internal Server Error; expected 2xx"),
    (503, False, "the webhook answered 503 Service Unavailable; expected 2xx"),
])
async def test_it_tells_final_answers_from_passing_ones(
    receiver: Receiver,
    open_channel: Open,
    make_notice: MakeNotice,
    status: int,
    permanent: bool,
    sentence: str,
) -> None:
    receiver.status, receiver.headers = status, {"Location": "/hook/elsewhere"}
    with pytest.raises(DeliveryFailed) as caught:
        await open_channel(url=receiver.url).send(make_notice())
    assert (str(caught.value), caught.value.permanent) == (sentence, permanent)
    assert len(receiver.requests) == 1, "a redirect is not followed"


@pytest.mark.parametrize(("header", "seconds"), [
    ("120", 120.0),
    ("Sat, 21 Nov 2026 09:01:30 GMT", 90.0),
    ("Sat, 21 Nov 2026 08:00:00 GMT", 0.0),
    ("-5", None),
    ("tomorrow", None),
    ("Sat, 99 Nov 2026 09:01:30 GMT", None),
    ("Sat, 21 Nov 20260000000000000000000000000 09:01:30 GMT", None),
])
async def test_it_passes_on_how_long_the_receiver_wishes_to_be_left_alone(
    receiver: Receiver, open_channel: Open, make_notice: MakeNotice, header: str, seconds: float | None
) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": header}
    with pytest.raises(DeliveryFailed) as caught:
        await open_channel(url=receiver.url).send(make_notice())
    assert caught.value.retry_after_seconds == seconds


async def test_nobody_there_is_worth_another_try_and_tells_no_path(
    open_channel: Open, make_notice: MakeNotice, unused_tcp_port: int
) -> None:
    channel = open_channel(url=f"http://127.0.0.1:{unused_tcp_port}/hook/T0KEN?key=S3CRET")
    with pytest.raises(DeliveryFailed) as caught:
        await channel.send(make_notice())
    assert not caught.value.permanent
    assert str(caught.value).startswith("the webhook could not be reached: ")
    assert "T0KEN" not in str(caught.value)
    assert "S3CRET" not in str(caught.value)


async def test_a_metadata_address_is_never_called(open_channel: Open, make_notice: MakeNotice) -> None:
    with pytest.raises(DeliveryFailed) as caught:
        await open_channel(url="http://169.254.169.254/latest/").send(make_notice())
    assert caught.value.permanent
    assert str(caught.value) == "the webhook was not called: address not allowed"


@pytest.mark.parametrize(("settings", "sentence"), [
    ({}, "missing url in [channels.ops]"),
    ({"url": "ftp://files/T0KEN"}, "bad url in [channels.ops]: expected an http:// or https:// URL"),
    ({"url": "http://[T0KEN"}, "bad url in [channels.ops]: expected an http:// or https:// URL"),
    ({"url": "https://h/", "secret": "T0KEN"},
     "bad secret in [channels.ops]: expected at least 16 characters"),
    ({"url": "https://h/", "colour": "T0KEN"}, "unknown setting colour in [channels.ops]"),
    ({"url": "https://h/", "timeout_seconds": 90},
     "bad timeout_seconds in [channels.ops]: input should be less than or equal to 25"),
    ({"url": "https://h/", "headers": {"X-Carapace-Delivery": "T0KEN"}},
     'bad settings in [channels.ops]: header "X-Carapace-Delivery" cannot be set: the channel sends its own'),
    ({"url": "https://h/", "headers": {"Idempotency-Key": "T0KEN"}},
     'bad settings in [channels.ops]: header "Idempotency-Key" cannot be set: the channel sends its own'),
    ({"url": "https://h/", "headers": {"Host": "T0KEN"}},
     'bad settings in [channels.ops]: header "Host" cannot be set: the gateway sends its own'),
    ({"url": "https://h/", "headers": {"X-A": "T0KEN\r\nX-B: c"}},
     'bad settings in [channels.ops]: bad value of header "X-A": expected one line of printable ASCII'),
    ({"url": "https://h/${env:NO_SUCH_VARIABLE}"},
     "${env:NO_SUCH_VARIABLE} in [channels.ops] url is empty: set the environment variable NO_SUCH_VARIABLE"),
])
def test_bad_settings_are_told_at_start_without_their_values(
    open_channel: Open, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_channel(**settings)
    assert str(caught.value) == sentence
    assert caught.value.__cause__ is None


async def test_secrets_come_from_the_environment(
    receiver: Receiver,
    open_channel: Open,
    make_notice: MakeNotice,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARAPACE_CRON_SECRET_OPS_HOOK", SECRET)
    monkeypatch.setenv("TEAM", "ops")
    settings = {"secret": "${secret:OPS_HOOK}", "headers": {"X-Team": "the ${env:TEAM} team"}}
    channel = open_channel(url=receiver.url, **settings)
    await channel.send(make_notice())
    [(headers, body, _)] = receiver.requests
    assert headers["X-Team"] == "the ops team"
    assert verify(headers, body, SECRET, clock.now())
    assert SECRET not in repr(channel._settings)


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
SIGNED = {"x-carapace-timestamp": STAMP, "X-CARAPACE-SIGNATURE": signature(STAMP, b"{}", SECRET)}


@pytest.mark.parametrize(("changes", "body", "secret", "after"), [
    ({}, b"{ }", SECRET, 0),
    ({}, b"{}", "another secret of mine", 0),
    ({}, b"{}", SECRET, 301),
    ({}, b"{}", SECRET, -301),
    ({"x-carapace-timestamp": str(int(STAMP) + 1)}, b"{}", SECRET, 0),
    ({"x-carapace-timestamp": "٣"}, b"{}", SECRET, 0),
    ({"x-carapace-timestamp": ""}, b"{}", SECRET, 0),
    ({"X-CARAPACE-SIGNATURE": ""}, b"{}", SECRET, 0),
    ({"X-CARAPACE-SIGNATURE": "v1=ü"}, b"{}", SECRET, 0),
])
def test_verify_refuses_what_was_changed_is_foreign_or_stale(
    changes: dict[str, str], body: bytes, secret: str, after: int
) -> None:
    assert verify(SIGNED, b"{}", SECRET, NOW + timedelta(seconds=300))
    assert not verify(SIGNED | changes, body, secret, NOW + timedelta(seconds=after))


def documented(language: str) -> str:
    """The receiver of the how-to."""
    page = (Path(__file__).parents[2] / "docs/howto/receive-a-webhook.md").read_text()
    [block] = re.findall(rf"^   ```{language}\n(.*?)^   ```$", page, re.MULTILINE | re.DOTALL)
    return textwrap.dedent(block)


def test_the_documented_receiver_in_python_does_as_ours() -> None:
    names: dict[str, Any] = {}
    exec(documented("python"), names)
    is_genuine, stamp = names["is_genuine"], str(int(time.time()))
    stale = str(int(stamp) - 3600)
    for timestamp, secret, expected in (
        (stamp, SECRET, True), (stamp, "another", False), (stale, SECRET, False),
    ):
        given = signature(timestamp, b"{}", secret)
        signed = {"X-Carapace-Timestamp": timestamp, "X-Carapace-Signature": given}
        assert is_genuine(signed, b"{}", SECRET) is expected
    assert is_genuine({}, b"{}", SECRET) is False


def test_the_documented_receiver_in_a_shell_does_as_ours(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b'{"a": 1}')
    stamp = str(int(time.time()))
    stale = str(int(stamp) - 3600)
    for timestamp, secret, printed in (
        (stamp, SECRET, "genuine"), (stamp, "another", "not genuine"), (stale, SECRET, "too old"),
    ):
        given = {"TIMESTAMP": timestamp, "SECRET": SECRET}
        given["SIGNATURE"] = signature(timestamp, b'{"a": 1}', secret)
        run = subprocess.run(
            ["sh", "-c", documented("sh")], env={**os.environ, **given}, cwd=tmp_path, capture_output=True
        )
        assert run.stdout.decode().strip() == printed
