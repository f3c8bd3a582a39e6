"""The ping addresses, held to what Healthchecks answers: statuses, bodies, headers, what is recorded."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from hashlib import sha256
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa

from carapace_cron.api import pings as pings_door
from carapace_cron.api.ping_address import PingAddress, read_address
from carapace_cron.errors import Unavailable
from carapace_cron.ledger.tables import events
from carapace_cron.ledger.watch_history import KeptPing, WatchHistory
from carapace_cron.model.actor import Actor
from carapace_cron.model.ping_proof import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from carapace_cron.monitors.ping_book import Busy
from carapace_cron.services.monitors import MonitorDesk

ALICE = Actor("acme", "alice", frozenset({"monitors"}))
UNKNOWN = "00000000-0000-4000-8000-000000000000"
RID = "1F2E3D4C-5B6A-4978-8695-A4B3C2D1E0F1"


class Door:
    """Alice's monitors, and the address at which they are pinged. Her ping key is ``pinger``."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.desk: MonitorDesk = api.cron._house.watch.monitors
        self._history = WatchHistory(api.cron._house._database)

    async def monitor(self, **fields: Any) -> str:
        """The id of a new monitor of Alice's."""
        return (await self.desk.create(ALICE, fields)).watched.monitor.id

    async def send(self, path: str, method: str = "GET", **options: Any) -> aiohttp.ClientResponse:
        url = f"{self.api.house.server.url}{path}"
        response: aiohttp.ClientResponse = await self.api.house.client.request(method, url, **options)
        await response.read()
        return response

    async def answer(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
        response = await self.send(path, method, **options)
        return response.status, await response.text()

    async def kept(self, monitor_id: str) -> list[KeptPing]:
        """The pings on record, oldest first."""
        return (await self._history.pings(monitor_id))[::-1]

    async def slugs(self) -> list[str]:
        return [one.monitor.slug for one in await self.desk.list(ALICE)]


@pytest.fixture
async def door(open_api: Callable[..., Awaitable[Any]]) -> Door:
    return Door(await open_api())


# What is a ping, and what it says


SIGNALS = [
    ("", "success", None),
    ("/", "success", None),
    ("/start", "start", None),
    ("/start/", "start", None),
    ("/fail", "fail", None),
    ("/log", "log", None),
    ("/0", "success", 0),
    ("/1", "fail", 1),
    ("/255", "fail", 255),
    ("/007", "fail", 7),
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_it_records_what_the_address_says(door: Door, method: str) -> None:
    for number, (suffix, kind, exit_status) in enumerate(SIGNALS):
        monitor = await door.monitor(slug=f"backup-{number}")
        for target in (monitor, monitor.upper(), f"pinger/backup-{number}"):
            response = await door.send(f"/ping/{target}{suffix}", method, headers={"User-Agent": "curl/8"})
            assert response.status == 200
            assert await response.text() == ("" if method == "HEAD" else "OK")
            assert response.headers["Content-Length"] == "2"
        pings = await door.kept(monitor)
        assert {(one.kind, one.exit_status, one.method) for one in pings} == {(kind, exit_status, method)}
        assert {(one.scheme, one.remote_address, one.user_agent) for one in pings} == {
            ("http", "127.0.0.1", "curl/8")
        }
        assert [one.n for one in pings] == [1, 2, 3]


async def test_the_answer_has_the_headers_that_clients_look_at(door: Door) -> None:
    headers = (await door.send(f"/ping/{await door.monitor()}")).headers
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Ping-Body-Limit"] == "10000"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"].startswith("text/plain")


NO_PINGS = [
    ("{unknown}", 404, "not found"),
    ("{unknown}/start", 404, "not found"),
    ("{known}/stop", 404, "not found"),
    ("{known}/-1", 404, "not found"),
    ("{known}/start/start", 404, "not found"),
    ("{known}//", 404, "not found"),
    ("{bare}", 404, "not found"),
    ("", 404, "not found"),
    ("pinger", 404, "not found"),
    ("pinger/", 404, "not found"),
    ("pinger/none", 404, "not found"),
    ("pinger/none?create=0", 404, "not found"),
    ("pinger/none?create=true", 404, "not found"),
    ("nobody/backup", 404, "not found"),
    ("nobody/backup?create=1", 404, "not found"),
    ("alice/backup", 404, "not found"),  # may do more than ping: no key
    ("bob/backup?create=1", 404, "not found"),
    ("pinger/Backup", 400, "invalid url format"),
    ("pinger/Backup?create=1", 400, "invalid url format"),
    ("{known}/256", 400, "invalid url format"),
    ("{known}/99999999999999999999999999", 400, "invalid url format"),
    ("{unknown}/256", 404, "not found"),
    ("pinger/backup/256", 400, "invalid url format"),
    ("pinger/none/256", 404, "not found"),
    ("{known}?rid=", 400, "invalid uuid format"),
    ("{known}?rid=1f2e3d4c5b6a49788695a4b3c2d1e0f1", 400, "invalid uuid format"),
    ("{known}?rid={unknown}%0A", 400, "invalid uuid format"),
    ("{known}/256?rid=", 400, "invalid url format"),
    ("{unknown}?rid=", 404, "not found"),
    ("pinger/backup?rid=", 400, "invalid uuid format"),
    ("pinger/none?rid=", 404, "not found"),
]


async def test_what_is_no_ping_is_refused_and_leaves_nothing(door: Door) -> None:
    known = await door.monitor(slug="backup")
    for path, status, text in NO_PINGS:
        named = path.format(known=known, unknown=UNKNOWN, bare=known.replace("-", ""))
        assert await door.answer(f"/ping/{named}") == (status, text), path
    assert await door.kept(known) == []
    assert await door.slugs() == ["backup"]


async def test_other_methods_are_no_pings(door: Door) -> None:
    monitor = await door.monitor()
    for method in ("PUT", "DELETE", "PATCH"):
        response = await door.send(f"/ping/{monitor}", method)
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert await door.kept(monitor) == []


async def test_a_browsers_question_is_answered_and_is_no_ping(door: Door) -> None:
    monitor = await door.monitor()
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    response = await door.send(f"/ping/{monitor}", "OPTIONS", headers=asked)
    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert await door.kept(monitor) == []


async def test_it_is_pinged_under_any_name_and_from_any_page(door: Door) -> None:
    monitor = await door.monitor()
    for headers in ({"Host": "cron.internal:8787"}, {"Origin": "https://page.example"}):
        assert await door.answer(f"/ping/{monitor}", headers=headers) == (200, "OK")
        assert (await door.answer("/healthz", headers=headers))[0] == 403


async def test_a_run_id_is_kept_in_lower_case_and_pairs_start_and_end(door: Door) -> None:
    monitor = await door.monitor()
    await door.send(f"/ping/{monitor}/start?rid={RID}")
    await door.api.clock.advance(12.5)
    await door.send(f"/ping/{monitor}?rid={RID.lower()}")
    start, end = await door.kept(monitor)
    assert start.rid == end.rid == RID.lower()
    assert end.duration_ms == 12_500


# Slugs and ?create=1


async def test_a_first_ping_makes_its_monitor(door: Door) -> None:
    assert await door.answer("/ping/pinger/nightly/start?create=1") == (201, "Created")
    assert await door.answer("/ping/pinger/nightly?create=1") == (200, "OK")
    (made,) = await door.desk.list(ALICE)
    assert (made.monitor.name, made.monitor.slug, made.health.pings) == ("nightly", "nightly", 2)


async def test_a_first_ping_says_what_its_monitor_is_to_be_like(door: Door) -> None:
    asked = {"create": "1", "schedule": "0 3 * * *", "tz": "Europe/Berlin", "grace": "30m", "tags": "prod db"}
    response = await door.send("/ping/pinger/nightly", params=asked)
    assert response.status == 201
    (made,) = await door.desk.list(ALICE)
    assert (made.monitor.schedule, made.monitor.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert (made.monitor.grace_seconds, made.monitor.tags) == (1800, ("prod", "db"))


async def test_a_bad_first_ping_makes_nothing(door: Door) -> None:
    for query, sentence in (
        ("rid=nonsense", "invalid uuid format"),
        ("grace=soon", 'bad grace "soon": expected seconds, or a duration such as'),
        ("schedule=noon", "bad schedule"),
        ("tz=Mars", 'bad timezone "Mars"'),
        ("period=2s", 'bad period "2s": expected at least 60 seconds'),
        ("grace=2y", 'bad grace "2y": expected seconds, or a duration such as'),
        ("heartbeat=1000d", 'bad heartbeat "1000d": expected at most 31536000 seconds'),
        ("remind=1s", 'bad remind "1s": expected at least 300 seconds'),
        ("failures=51", 'bad failures "51": expected at most 50'),
        ("notify=down,sideways", 'bad notify "down,sideways": expected "down", "late"'),
        ("name=a%0Ab", 'bad name "a\\nb": expected one line'),
        ("period=1h&schedule=@daily", 'bad period "1h": expected a period or a schedule, not both'),
    ):
        status, text = await door.answer(f"/ping/pinger/nightly?create=1&{query}")
        assert status == 400
        assert text.startswith(sentence)
    assert (await door.answer("/ping/pinger/nightly/256?create=1"))[0] == 400
    status, text = await door.answer(f"/ping/pinger/{'x' * 101}?create=1")
    assert status == 400 and text.startswith('bad slug "xxx') and text.endswith("at most 100 characters")
    assert await door.slugs() == []


async def test_who_is_told_of_a_monitor_that_a_ping_made(open_api: Callable[..., Awaitable[Any]]) -> None:
    """As with Healthchecks, everybody; unless the ping says whom."""
    door = Door(await open_api(channels={"ops": {"kind": "apprise", "url": "json://127.0.0.1:9/x"}}))
    asked = {"one": "", "two": "&channels=ops", "three": "&channels=*", "four": "&channels="}
    for slug, query in asked.items():
        assert (await door.answer(f"/ping/pinger/{slug}?create=1{query}"))[0] == 201
    told = {one.monitor.slug: one.monitor.channels for one in await door.desk.list(ALICE)}
    assert told == {"one": ("gateway", "ops"), "two": ("ops",), "three": ("gateway", "ops"), "four": ()}
    assert (await door.answer("/ping/pinger/five?create=1&channels=oops"))[0] == 400


async def test_all_channels_are_at_most_as_many_as_a_monitor_can_have(
    open_api: Callable[..., Awaitable[Any]],
) -> None:
    many = {f"ops{n:02}": {"kind": "apprise", "url": "json://127.0.0.1:9/x"} for n in range(60)}
    door = Door(await open_api(channels=many))
    assert (await door.answer("/ping/pinger/one?create=1"))[0] == 201
    checks = "/api/v3/checks/"
    status, text = await door.answer(checks, "POST", json={"channels": "*"}, headers={"X-Api-Key": "ada"})
    assert status == 201 and len(json.loads(text)["channels"].split(",")) == 50
    (watched,) = await door.desk.list(ALICE)
    assert len(watched.monitor.channels) == 50


async def test_a_ping_key_is_a_token_that_may_do_nothing_else(door: Door) -> None:
    await door.monitor(slug="backup")
    asked = {"tenant": "acme", "user": "alice"}
    issued = {
        scopes: await door.api.data("tokens.create", {**asked, "scopes": scopes.split()}, who="ada")
        for scopes in ("ping", "ping monitors", "monitors", "admin")
    }
    for scopes, token in issued.items():
        expected = (200, "OK") if scopes == "ping" else (404, "not found")
        assert await door.answer(f"/ping/{token['token']}/backup") == expected
    stranger = await door.api.data(
        "tokens.create", {"tenant": "acme", "user": "bob", "scopes": ["ping"]}, who="ada"
    )
    assert await door.answer(f"/ping/{stranger['token']}/backup") == (404, "not found")
    key = issued["ping"]
    answers = await asyncio.gather(
        *(door.answer(f"/ping/{key['token']}/{slug}") for slug in ("backup", "none", "backup"))
    )
    assert answers == [(200, "OK"), (404, "not found"), (200, "OK")]
    await door.api.data("tokens.revoke", {"id": key["id"]}, who="ada")
    assert await door.answer(f"/ping/{key['token']}/backup") == (404, "not found")


async def test_fifty_first_pings_at_once_make_one_monitor(door: Door) -> None:
    answers = await asyncio.gather(*(door.answer("/ping/pinger/nightly?create=1") for _ in range(50)))
    assert sorted(answers) == [(200, "OK")] * 49 + [(201, "Created")]
    (made,) = await door.desk.list(ALICE)
    assert made.health.pings == 50


async def test_beyond_the_tenants_limit_nothing_is_made(open_api: Callable[..., Awaitable[Any]]) -> None:
    door = Door(await open_api(max_monitors_per_tenant=1))
    assert (await door.answer("/ping/pinger/one?create=1"))[0] == 201
    assert await door.answer("/ping/pinger/two?create=1") == (404, "not found")


# Bodies


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


BODIES = [b"", b"done", b"\xff\xfe\x00 no UTF-8", b"a" * 10_000, b"a" * 10_001, b"a" * 3_000_000]


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_first_bytes_of_a_body_are_kept_whatever_they_are(door: Door, chunked: bool) -> None:
    for body in BODIES:
        monitor = await door.monitor(filterBody=True, successKeywords="done", failureKeywords="aaa")
        sent = in_pieces(body[:5], body[5:]) if chunked else io.BytesIO(body)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert await door.answer(f"/ping/{monitor}", "POST", data=sent, headers=headers) == (200, "OK")
        (ping,) = await door.kept(monitor)
        assert ping.body_bytes == min(len(body), 10_000)
        if body:
            assert await door.desk.ping_body(ALICE, monitor, 1) == body[:10_000]


async def raw(door: Door, sent: bytes, *, breaks_off: bool = False) -> bytes:
    """What a connection answers to bytes that are sent as they are."""
    server = door.api.house.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(sent)
    if breaks_off:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_ping_whose_body_breaks_off_counts(door: Door) -> None:
    for tail in ("Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf"):
        monitor = await door.monitor()
        head = f"POST /ping/{monitor}/fail HTTP/1.1\r\nHost: x\r\n"
        await raw(door, f"{head}{tail}".encode(), breaks_off=True)
        await door.api.until(partial(has_pings, door, monitor))
        (ping,) = await door.kept(monitor)
        assert (ping.kind, await door.desk.ping_body(ALICE, monitor, 1)) == ("fail", b"half")


async def has_pings(door: Door, monitor: str) -> bool:
    return bool(await door.kept(monitor))


async def test_a_user_agent_that_no_database_can_hold_is_kept_as_far_as_it_goes(door: Door) -> None:
    monitor = await door.monitor()
    head = f"GET /ping/{monitor} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: ".encode()
    assert b" 200 OK" in await raw(door, head + b"caf\xe9 \xf0\x9f\x90\xa2 " + b"x" * 500 + b"\r\n\r\n")
    (ping,) = await door.kept(monitor)
    assert ping.user_agent.startswith("caf? \N{TURTLE} xxx")
    assert len(ping.user_agent) == 200


# Signed pings


async def test_a_monitor_that_wants_signed_pings_takes_no_others(door: Door) -> None:
    monitor = await door.monitor(slug="backup")
    secret = await door.desk.sign(ALICE, monitor, True)
    assert secret is not None
    now = int(door.api.clock.now().timestamp())
    other, body = await door.monitor(), b"no space left" * 1_000

    async def signed(path: str, signed_path: str, by: str, at: int, sent: bytes = body) -> int:
        digest = sha256(body).hexdigest()
        headers = {
            TIMESTAMP_HEADER: str(at),
            SIGNATURE_HEADER: sign(by, str(at), signed_path, digest),
        }
        return (await door.send(path, "POST", data=sent, headers=headers)).status

    for address in (f"/ping/{monitor}/fail?rid={RID}", "/ping/pinger/backup", f"/webhook/ping/{monitor}"):
        assert (await door.send(address, "POST", data=body)).status == 403
        accepted = 400 if address.startswith("/webhook") else 200  # it is no report; it is on record
        assert await signed(address, address, secret, now) == accepted
        assert await signed(address, address, secret, now - 301) == 403
        assert await signed(address, address, secret, now + 301) == 403
        assert await signed(address, address, "another", now) == 403
        assert await signed(address, "/ping/" + monitor, secret, now) == 403
        assert await signed(address, address, secret, now, body + b".") == 403
    assert [one.kind for one in await door.kept(monitor)] == ["fail", "success", "log"]
    bad = {SIGNATURE_HEADER: "v1=\u00e9", TIMESTAMP_HEADER: "\u0663"}
    assert (await door.send(f"/ping/{monitor}", headers=bad)).status == 403
    assert (await door.send(f"/ping/{other}", headers=bad)).status == 200

    assert await door.desk.sign(ALICE, monitor, True) != secret
    assert await signed(f"/ping/{monitor}", f"/ping/{monitor}", secret, now) == 403
    assert await door.desk.sign(ALICE, monitor, False) is None
    assert await door.answer(f"/ping/{monitor}") == (200, "OK")


async def test_nobody_is_shown_what_signs(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    monitor = await door.monitor(slug="backup")
    secret = await door.desk.sign(ALICE, monitor, True)
    assert secret is not None
    watched = await door.desk.get(ALICE, monitor)
    door.api.house.people.known["rw"] = ALICE
    shown = [repr(watched), await door.api.data("monitors.get", [monitor], who="rw")]
    shown.append(await door.answer(f"/api/v3/checks/{monitor}", headers={"X-Api-Key": "rw"}))
    database = door.api.cron._house._database
    shown.append(await database.read(lambda c: c.execute(sa.select(events)).all()))
    assert secret not in str(shown) + caplog.text
    assert shown[1]["signed"] is True
    assert "{'signed': True}" in str(shown[3])


# When it cannot be kept


@pytest.mark.parametrize("error", [Busy("full"), Unavailable("away")])
async def test_a_ping_that_cannot_be_kept_is_asked_for_again(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monitor = await door.monitor(slug="backup")

    async def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(door.api.cron._house.watch.pings, "record", fails)
    for target in (monitor, "pinger/backup"):
        response = await door.send(f"/ping/{target}")
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert caplog.text.count("pings are refused") == 1
    assert monitor not in caplog.text and "pinger" not in caplog.text


async def test_a_ledger_that_hangs_while_a_monitor_is_looked_for_keeps_nobody_waiting(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hangs(*arguments: Any, **named: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(pings_door, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(door.desk, "ping_target", hangs)
    response = await door.send("/ping/pinger/new?create=1")
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert "pings are refused: the ledger hangs" in caplog.text


async def test_no_log_has_the_address_of_a_ping(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    monitor = await door.monitor(slug="backup")
    with caplog.at_level(logging.DEBUG):
        for target in (monitor, f"{monitor}/256", "pinger/backup", "pinger/none", f"{UNKNOWN}?rid={RID}"):
            await door.send(f"/ping/{target}")
        await door.send(f"/webhook/ping/{monitor}", "POST", data=b"{")
        await asyncio.sleep(0)
    mine = [one.getMessage() for one in caplog.records if one.name.startswith(("carapace_cron", "aiohttp"))]
    assert any("GET /ping/{address}" in line for line in mine)
    assert not [line for line in mine if monitor in line or "pinger" in line or RID in line]
    assert monitor not in repr(read_address(monitor))
    assert "pinger" not in repr(PingAddress("", "pinger", "backup", "log"))


# Reports in JSON

REPORT = {"status": "failed", "message": "disk full", "execution_time_ms": 1500, "data": {"rows": 3}}


REPORTS = [
    (b"", "success", None),
    (b"{}", "success", None),
    (json.dumps(REPORT).encode(), "fail", 1500),
    (b'{"status": "success", "execution_time_ms": 0.6}', "success", 1),
    (b'{"status": "running", "data": [1, null]}', "start", None),
    (b'{"status": "running", "message": null}', "start", None),
]


async def test_a_report_says_how_it_went(door: Door) -> None:
    for number, (body, kind, duration_ms) in enumerate(REPORTS):
        monitor = await door.monitor(slug=f"backup-{number}")
        for target in (monitor, f"pinger/backup-{number}"):
            status, text = await door.answer(f"/webhook/ping/{target}", "POST", data=body)
            assert (status, json.loads(text)) == (200, {"success": True})
        for ping in await door.kept(monitor):
            assert (ping.kind, ping.duration_ms, ping.body_bytes) == (kind, duration_ms, len(body))


NO_REPORTS = [
    (b"done", "not JSON"),
    (b"[]", "bad report: expected a JSON object"),
    (b'{"status": "ok"}', 'bad status "ok": expected "success", "failed" or "running"'),
    (b'{"status": null}', "bad status null"),
    (b'{"state": "failed"}', "unknown field 'state': leave it out"),
    (b'{"execution_time_ms": -1}', "bad execution_time_ms -1: expected at least 0"),
    (b'{"execution_time_ms": "12"}', "bad execution_time_ms"),
    (b'{"data": NaN}', "NaN is not a JSON number"),
    (b'{"message": "' + b"x" * 300_000 + b'"}', "the report is cut off or too large"),
    (b"\xff", "not UTF-8"),
]


async def test_a_report_that_cannot_be_read_is_refused_and_its_arrival_is_on_record(door: Door) -> None:
    for body, sentence in NO_REPORTS:
        monitor = await door.monitor()
        status, text = await door.answer(f"/webhook/ping/{monitor}", "POST", data=body)
        answer = json.loads(text)
        assert (status, answer["success"], answer["code"]) == (400, False, "invalid")
        assert answer["error"].startswith(sentence)
        (ping,) = await door.kept(monitor)
        assert (ping.kind, ping.body_bytes) == ("log", min(len(body), 10_000))


async def test_a_report_that_cannot_be_read_makes_no_monitor(door: Door) -> None:
    for address, status in (("pinger/new?create=1", 400), ("pinger/new", 404), ("nobody/new?create=1", 404)):
        answered, text = await door.answer(f"/webhook/ping/{address}", "POST", data=b"done")
        assert (answered, json.loads(text)["success"]) == (status, False)
    assert await door.slugs() == []
    assert (await door.answer("/webhook/ping/pinger/new?create=1", "POST", json=REPORT))[0] == 201
    assert await door.slugs() == ["new"]


async def test_a_report_is_for_a_monitor_and_has_no_suffix(door: Door) -> None:
    monitor = await door.monitor()
    for path in (UNKNOWN, f"{monitor}/fail", f"{monitor}/0", "pinger/none", "nonsense"):
        status, text = await door.answer(f"/webhook/ping/{path}", "POST", json=REPORT)
        assert (status, json.loads(text)) == (
            404, {"success": False, "error": "not found", "code": "not_found"},
        )  # fmt: skip
    assert (await door.send(f"/webhook/ping/{monitor}")).status == 405
    assert await door.kept(monitor) == []


async def test_running_and_its_end_are_one_run(door: Door) -> None:
    monitor = await door.monitor()
    for status in ("running", "success"):
        await door.send(f"/webhook/ping/{monitor}?rid={RID}", "POST", json={"status": status})
        await door.api.clock.advance(3)
    (watched,) = await door.desk.list(ALICE)
    assert watched.health.last_duration_ms == 3_000
    assert not watched.health.started


async def test_the_same_json_at_a_ping_address_is_a_text_like_any_other(door: Door) -> None:
    monitor = await door.monitor()
    await door.send(f"/ping/{monitor}", "POST", json=REPORT)
    assert [one.kind for one in await door.kept(monitor)] == ["success"]
