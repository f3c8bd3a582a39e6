"""Apprise for real, against HTTP and SMTP targets on the loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import apprise
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from carapace_cron.channels.apprise import (
    AppriseChannel,
    apprise_channel,
    masked,
    secrets_of,
    without_spells,
)
from carapace_cron.errors import ConfigurationError
from carapace_cron.model.notice import Notice
from carapace_cron.ports.channel import DeliveryFailed

MakeNotice = Callable[..., Notice]
HOSTILE = "<!channel> & <b>bold</b> @everyone\nnext"


class Target:
    """An HTTP service that keeps what it is told, by path."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.status: dict[str, int] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.place = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.told.append((request.path, await request.text()))
        await self.go_on.wait()
        return web.Response(status=self.status.get(request.path, 200), text="ok")

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.told]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    target = Target()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", target.handle)
    server = TestServer(application)
    await server.start_server()
    target.place = f"{server.host}:{server.port}"
    yield target
    target.go_on.set()
    await server.close()


@pytest.fixture
def operators_log() -> Iterator[list[str]]:
    """All that reaches the root logger at debug level. (`caplog` hears loggers that do not propagate too.)"""
    lines: list[str] = []

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name != "aiohttp.access":  # the target's own log
                lines.append(record.getMessage())

    root, handler = logging.getLogger(), Log()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


async def test_a_service_gets_title_and_text(target: Target, make_notice: MakeNotice) -> None:
    notice = make_notice()
    await apprise_channel("ops", {"url": f"json://{target.place}/hook"}).send(notice)
    [told] = target.bodies()
    assert (told["title"], told["message"]) == ("Daily report: success", notice.text)


async def test_no_output_can_call_everybody(target: Target, make_notice: MakeNotice) -> None:
    channel = apprise_channel("ops", {"url": f"mmost://{target.place}/token1234567890"})
    await channel.send(make_notice(output=HOSTILE, job_name="@here"))
    [told] = target.bodies()
    for call in ("<!channel>", "@everyone", "@here"):
        assert call not in told["text"]
    assert "<\u200b!channel>" in told["text"]


@pytest.mark.parametrize(
    "link",
    [
        "[bank.example](https://evil.example)",
        "![](https://evil.example/seen.png)",
        "<https://evil.example|bank.example>",
        "<mailto:eve@evil.example|help>",
        "[bank.example]: https://evil.example",
        "[bank.example]:\n<https://evil.example>",
    ],
)
async def test_no_output_can_hide_where_a_link_leads(
    target: Target, make_notice: MakeNotice, link: str
) -> None:
    channel = apprise_channel("ops", {"url": f"mmost://{target.place}/token1234567890"})
    await channel.send(make_notice(output=f"see {link}", job_name=link))
    [told] = target.bodies()
    assert link not in told["text"] and link in told["text"].replace("\u200b", "")


def test_a_text_of_nothing_but_spells_is_read_quickly() -> None:
    began = time.perf_counter()
    for text in ("](" * 8_000, "]:" * 8_000, "<a" * 8_000, "]:" + " " * 16_000, "<" + "a" * 16_000):
        assert without_spells(text).replace("\u200b", "") == text
    assert time.perf_counter() - began < 1


async def test_slack_gets_its_three_characters_escaped(
    target: Target, make_notice: MakeNotice, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack = apprise.Apprise.instantiate("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/")
    assert slack is not None
    monkeypatch.setattr(type(slack), "webhook_url", f"http://{target.place}/services")
    monkeypatch.setattr(type(slack), "request_rate_per_sec", 0)
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
    await apprise_channel("ops", {"url": url}).send(make_notice(output=HOSTILE))
    [(path, body)] = target.told
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    told = json.loads(body)["attachments"][0]["text"]
    assert "&lt;\u200b!channel&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in told


@pytest.mark.parametrize(
    "name", ["Report Bcc: eve@example.com", "Report =?utf-8?q?=0D=0ABcc:_eve@example.com?="]
)
async def test_a_mail_has_one_subject_and_no_header_of_a_jobs_making(
    make_notice: MakeNotice, name: str
) -> None:
    mails: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 localhost\r\n")
        while line := (await reader.readline()).decode():
            verb = line[:4].upper()
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n")
            if verb == "QUIT":
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"mailto://127.0.0.1:{port}/?from=cron@example.com&to=ops@example.com&mode=insecure"
    output = HOSTILE + "\n.\nRCPT TO:<eve@example.com>"
    notice = make_notice(job_name=name, output=output)
    async with server:
        await apprise_channel("ops", {"url": url}).send(notice)
    [mail] = mails
    headers = mail.split("\r\n\r\n")[0].splitlines()
    subjects = [line for line in headers if line.startswith("Subject:")]
    assert len(subjects) == 1 and subjects[0].startswith(("Subject: Report", "Subject: =?utf-8?"))
    assert [line for line in headers if line.startswith(("Bcc:", "Cc:"))] == []
    assert 'Content-Type: text/plain; charset="utf-8"' in headers
    assert "\r\n..\r\n" in mail, "a line with a full stop alone does not end the message"


async def test_a_long_output_is_cut_to_what_the_service_takes(
    target: Target, make_notice: MakeNotice
) -> None:
    channel = apprise_channel("ops", {"url": f"mmost://{target.place}/token1234567890"})
    await channel.send(make_notice(output="head" + "x" * 15_000 + "tail"))
    [told] = target.bodies()
    assert len(told["text"]) <= 4_000
    assert "head" in told["text"]
    assert told["text"].endswith("tail")


async def test_a_failure_says_what_the_library_said_and_no_secret(
    target: Target, make_notice: MakeNotice, operators_log: list[str]
) -> None:
    target.status["/hook/T0KEN"] = 401
    url = f"json://alice:S3CRET@{target.place}/hook/T0KEN?+X-Key=K3YK3Y"
    with pytest.raises(DeliveryFailed) as caught:
        await apprise_channel("ops", {"url": url}).send(make_notice())
    assert str(caught.value).startswith("JSON did not take the notice: Failed to send JSON POST notification")
    assert "401" in str(caught.value)
    assert not caught.value.permanent
    for secret in ("T0KEN", "S3CRET", "K3YK3Y"):
        assert secret not in str(caught.value) + str(operators_log)


async def test_a_service_that_nobody_answers_for_is_named_without_its_host(
    make_notice: MakeNotice, unused_tcp_port: int
) -> None:
    channel = apprise_channel("ops", {"url": f"json://localhost:{unused_tcp_port}/T0KEN"})
    with pytest.raises(DeliveryFailed, match="A Connection error occurred sending JSON notification to …"):
        await channel.send(make_notice())


async def test_what_one_of_several_took_is_not_told_to_it_again(
    target: Target, make_notice: MakeNotice
) -> None:
    channel = apprise_channel("ops", {"urls": [f"json://{target.place}/a", f"json://{target.place}/b"]})
    target.status["/b"] = 500
    notice = make_notice("1")
    with pytest.raises(DeliveryFailed):
        await channel.send(notice)
    target.status.clear()
    await channel.send(notice)
    await channel.send(make_notice("2"))
    assert [path for path, _ in target.told] == ["/a", "/b", "/b", "/a", "/b"]


async def test_one_notice_may_follow_another_at_once(make_notice: MakeNotice) -> None:
    told: list[str] = []

    class Quick:
        def tell(self, title: str, text: str) -> None:
            told.append(title)

    channel = AppriseChannel([Quick()], timeout_seconds=5)
    for number in range(200):
        await channel.send(make_notice(str(number)))
    assert len(told) == 200


async def test_a_slow_service_delays_no_other_and_is_asked_once_at_a_time(
    target: Target, make_notice: MakeNotice
) -> None:
    stuck, released = threading.Event(), threading.Event()

    class Stuck:
        def tell(self, title: str, text: str) -> None:
            stuck.set()
            released.wait(10)

    slow = AppriseChannel([Stuck()], timeout_seconds=0.01)
    with pytest.raises(DeliveryFailed, match=r"^no answer within 0\.01 s$"):
        await slow.send(make_notice("1"))
    with pytest.raises(DeliveryFailed, match="the send before this one is still stuck"):
        await slow.send(make_notice("1"))
    await apprise_channel("other", {"url": f"json://{target.place}/"}).send(make_notice("2"))
    assert len(target.told) == 1

    released.set()
    async with asyncio.timeout(10):
        while slow._sending:
            await asyncio.sleep(0.001)
    await slow.send(make_notice("1"))
    assert slow._told == ("1", {0}), "it was taken in the end, so it was not told again"


@pytest.mark.parametrize(("settings", "sentence"), [
    ({}, "bad settings in [channels.ops]: expected either url or urls"),
    ({"url": "json://h", "urls": ["json://T0KEN"]},
     "bad settings in [channels.ops]: expected either url or urls"),
    ({"url": "bogus://T0KEN/x"},
     "bad url in [channels.ops]: a URL with the schema bogus://, which Apprise does not understand; "
     "see https://github.com/caronc/apprise/wiki for the form each service wants"),
    ({"url": "T0KEN"},
     "bad url in [channels.ops]: no URL, which Apprise does not understand; "
     "see https://github.com/caronc/apprise/wiki for the form each service wants"),
    ({"urls": ["json://host/", "slack://T0KEN"]},
     "bad url in [channels.ops]: a URL with the schema slack://, which Apprise does not understand; "
     "see https://github.com/caronc/apprise/wiki for the form each service wants"),
])
def test_bad_settings_are_told_at_start_by_channel_and_schema_only(
    settings: dict[str, Any], sentence: str, operators_log: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        apprise_channel("ops", settings)
    assert str(caught.value) == sentence
    assert "T0KEN" not in str(operators_log)


def test_every_part_of_an_address_counts_as_secret() -> None:
    secrets = secrets_of("tgram://12345:AAbb%2FCC/chat-9/?format=html")
    assert masked("POST /bot12345:AAbb/CC to AABB%2Fcc, chat-9", secrets) == "POST /bot…:… to …, …"
    assert masked("nothing hidden", secrets_of("x://a/b")) == "nothing hidden"
