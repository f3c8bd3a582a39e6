"""The management API of Healthchecks, v1 to v3: its shapes, texts and statuses, asked as its clients ask."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from carapace_cron.errors import Unavailable
from carapace_cron.ids import unique_key
from carapace_cron.model.actor import Actor

UNKNOWN = "00000000-0000-4000-8000-000000000000"
KEYS = {
    "rw": Actor("acme", "alice", frozenset({"monitors"})),
    "ro": Actor("acme", "alice", frozenset({"monitors:read"})),
    "jobs": Actor("acme", "alice", frozenset({"jobs:write"})),
    "team": Actor("acme", "bob", frozenset({"monitors"})),
    "stranger": Actor("other", "charlie", frozenset({"admin"})),
}


class Checks:
    """Somebody who knows Healthchecks' documentation. `key`: what goes into X-Api-Key."""

    def __init__(self, api: Any) -> None:
        self.api = api
        api.house.people.known |= KEYS

    @property
    def root(self) -> str:
        return str(self.api.house.server.url)

    async def send(
        self,
        method: str,
        path: str,
        given: Any = None,
        *,
        key: str | None = "rw",
        version: int = 3,
        **options: Any,
    ) -> tuple[int, Any]:
        """Status and answer: an object where it is JSON, else a text."""
        headers = options.pop("headers", {}) | ({} if key is None else {"X-Api-Key": key})
        if given is not None:
            options["data"] = given if isinstance(given, bytes) else json.dumps(given)
        url = f"{self.root}/api/v{version}/{path}"
        async with self.api.house.client.request(method, url, headers=headers, **options) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text

    async def made(self, **given: Any) -> Any:
        status, check = await self.send("POST", "checks/", given)
        assert status == 201, check
        return check

    async def error(self, method: str, path: str, given: Any = None, **options: Any) -> tuple[int, str]:
        status, answer = await self.send(method, path, given, **options)
        assert set(answer) == {"error"}
        return status, answer["error"]

    async def ping(self, check: Any, suffix: str = "", body: bytes = b"") -> None:
        headers = {"User-Agent": "curl/8"}
        url = check["ping_url"] + suffix
        assert (await self.api.house.client.post(url, data=body, headers=headers)).status == 200


@pytest.fixture
async def checks(open_api: Callable[..., Awaitable[Any]]) -> Checks:
    return Checks(await open_api(channels={"ops": {"kind": "apprise", "url": "json://127.0.0.1:9/x"}}))


# A check and its life


async def test_a_new_check_has_every_field_that_there_is(checks: Checks) -> None:
    given = {"name": "Backup", "slug": "backup", "tags": "prod  db", "desc": "nightly"}
    check = await checks.made(**given, timeout=3600, grace=60)
    uuid = check["uuid"]
    own = f"{checks.root}/api/v3/checks/{uuid}"
    assert check == {
        "name": "Backup",
        "slug": "backup",
        "tags": "prod db",
        "desc": "nightly",
        "grace": 60,
        "n_pings": 0,
        "status": "new",
        "started": False,
        "last_ping": None,
        "next_ping": None,
        "manual_resume": False,
        "methods": "",
        "subject": "",
        "subject_fail": "",
        "start_kw": "",
        "success_kw": "",
        "failure_kw": "",
        "filter_subject": False,
        "filter_body": False,
        "filter_http_body": False,
        "filter_default_fail": False,
        "badge_url": f"{checks.root}/b/2/{unique_key(uuid)}.svg",
        "uuid": uuid,
        "ping_url": f"{checks.root}/ping/{uuid}",
        "update_url": own,
        "pause_url": f"{own}/pause",
        "resume_url": f"{own}/resume",
        "channels": "",
        "timeout": 3600,
    }


async def test_without_any_field_it_is_a_check_of_a_day_and_an_hour(checks: Checks) -> None:
    status, check = await checks.send("POST", "checks/")
    assert (status, check["name"], check["timeout"], check["grace"]) == (201, "", 86_400, 3_600)


async def test_a_schedule_takes_the_place_of_a_timeout(checks: Checks) -> None:
    check = await checks.made(schedule="15 5 * * *", timeout=60, tz="Europe/Riga")
    assert (check["schedule"], check["tz"]) == ("15 5 * * *", "Europe/Riga")
    assert "timeout" not in check
    status, simple = await checks.send("POST", f"checks/{check['uuid']}", {"timeout": 600})
    assert (status, simple["timeout"]) == (200, 600)
    assert "schedule" not in simple
    _, again = await checks.send("POST", f"checks/{check['uuid']}", {"schedule": "Mon *-*-* 05:00:00"})
    assert again["schedule"] == "Mon *-*-* 05:00:00"


async def test_pings_show_in_the_check_its_pings_and_its_flips(checks: Checks) -> None:
    clock = checks.api.clock
    check = await checks.made(timeout=60, grace=60)
    path = f"checks/{check['uuid']}"
    await checks.ping(check, "/start?rid=" + UNKNOWN)
    assert (await checks.send("GET", path))[1]["started"] is True
    assert (await checks.send("GET", path, version=1))[1]["status"] == "started"
    assert (await checks.send("GET", path))[1]["status"] == "new"
    await clock.advance(2.5)
    await checks.ping(check, "?rid=" + UNKNOWN, b"all copied")
    _, seen = await checks.send("GET", path)
    assert (seen["status"], seen["n_pings"], seen["last_duration"]) == ("up", 2, 2)
    assert seen["last_ping"] == "2026-01-30T12:00:02+00:00"
    assert seen["next_ping"] == "2026-01-30T12:01:02+00:00"
    await clock.advance(61)
    assert (await checks.send("GET", path))[1]["status"] == "grace"
    await clock.advance(60)
    assert (await checks.send("GET", path))[1]["status"] == "down"

    _, answer = await checks.send("GET", f"{path}/pings/")
    assert answer["pings"] == [
        {
            "type": "success",
            "date": "2026-01-30T12:00:02.500000+00:00",
            "n": 2,
            "scheme": "http",
            "remote_addr": "127.0.0.1",
            "method": "POST",
            "ua": "curl/8",
            "rid": UNKNOWN,
            "body_url": f"{checks.root}/api/v3/{path}/pings/2/body",
            "duration": 2.5,
        },
        {
            "type": "start",
            "date": "2026-01-30T12:00:00+00:00",
            "n": 1,
            "scheme": "http",
            "remote_addr": "127.0.0.1",
            "method": "POST",
            "ua": "curl/8",
            "rid": UNKNOWN,
            "body_url": None,
        },
    ]
    assert await checks.send("GET", f"{path}/pings/2/body") == (200, "all copied")
    for n in ("1", "3", "99999999999999999999"):
        assert (await checks.send("GET", f"{path}/pings/{n}/body"))[0] == 404

    assert (await checks.send("GET", f"{path}/flips/"))[1] == {
        "flips": [
            {"timestamp": "2026-01-30T12:02:02+00:00", "up": 0},
            {"timestamp": "2026-01-30T12:00:02+00:00", "up": 1},
        ]
    }


@pytest.mark.parametrize(
    ("query", "ups"),
    [
        ("", [0, 1]),
        ("?seconds=3600", [0, 1]),
        ("?seconds=30", [0]),
        ("?start=1769774460", [0]),
        ("?start=1769774400&end=1769774460", [1]),
        ("?seconds=soon", None),
        ("?seconds=31536001", None),
        ("?start=-1", None),
        ("?end=10000000001", None),
    ],
)
async def test_flips_are_asked_for_by_time(checks: Checks, query: str, ups: list[int] | None) -> None:
    check = await checks.made()
    await checks.ping(check)
    await checks.api.clock.advance(60)
    await checks.ping(check, "/fail")
    status, answer = await checks.send("GET", f"checks/{check['uuid']}/flips/{query}")
    assert status == (400 if ups is None else 200)
    assert ups is None or [flip["up"] for flip in answer["flips"]] == ups


async def test_a_pause_is_no_downtime(checks: Checks) -> None:
    check = await checks.made()
    path = f"checks/{check['uuid']}"
    await checks.ping(check)
    status, paused = await checks.send("POST", f"{path}/pause")
    assert (status, paused["status"], paused["next_ping"]) == (200, "paused", None)
    assert (await checks.send("POST", f"{path}/pause", {}))[0] == 200
    status, resumed = await checks.send("POST", f"{path}/resume")
    assert (status, resumed["status"], resumed["last_ping"]) == (200, "new", None)
    assert await checks.send("POST", f"{path}/resume") == (409, "check is not paused")
    _, answer = await checks.send("GET", f"{path}/flips/")
    assert [flip["up"] for flip in answer["flips"]] == [1]


async def test_a_deleted_check_is_shown_once_more_and_then_gone(checks: Checks) -> None:
    check = await checks.made(name="Backup")
    status, gone = await checks.send("DELETE", f"checks/{check['uuid']}")
    assert (status, gone["name"]) == (200, "Backup")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ""), ("POST", "/pause"), ("GET", "/pings/")):
        assert (await checks.error(method, f"checks/{check['uuid']}{path}"))[0] == 404
    assert (await checks.api.house.client.get(check["ping_url"])).status == 404


async def test_an_update_changes_what_it_names(checks: Checks) -> None:
    check = await checks.made(name="Backup", slug="backup", tags="a b", timeout=120)
    given = {
        "desc": "x",
        "methods": "POST",
        "manual_resume": True,
        "start_kw": "begin",
        "success_kw": "done",
        "failure_kw": "oops",
        "filter_http_body": True,
        "filter_default_fail": True,
        "filter_subject": True,
        "unknown": 1,
    }
    status, changed = await checks.send("POST", f"checks/{check['uuid']}", given)
    assert status == 200
    for ignored in ("filter_subject", "unknown"):
        del given[ignored]
    expected = check | given
    assert changed == expected
    assert (await checks.send("POST", f"checks/{check['uuid']}", {}))[1] == expected


# Lists


async def test_checks_are_found_by_all_of_the_tags_and_by_slug(checks: Checks) -> None:
    for slug, tags in (("one", "prod host=a.b"), ("two", "prod"), ("three", "production")):
        await checks.made(slug=slug, tags=tags)
        await checks.api.clock.advance(1)
    for query, slugs in (
        ("", ["one", "two", "three"]),
        ("?tag=prod", ["one", "two"]),
        ("?&tag=prod&tag=host%3Da.b", ["one"]),
        ("?tag=pro", []),
        ("?slug=two", ["two"]),
        ("?slug=", ["one", "two", "three"]),
        ("?slug=two&tag=production", []),
    ):
        for slash in ("/", ""):
            _, answer = await checks.send("GET", f"checks{slash}{query}")
            assert [one["slug"] for one in answer["checks"]] == slugs


async def test_channels_are_named_by_id_or_all_at_once(checks: Checks) -> None:
    _, answer = await checks.send("GET", "channels/")
    assert answer == {
        "channels": [
            {"id": "gateway", "name": "gateway", "kind": "gateway"},
            {"id": "ops", "name": "ops", "kind": "apprise"},
        ]
    }
    check = await checks.made(channels="*")
    assert check["channels"] == "gateway,ops"
    path = f"checks/{check['uuid']}"
    assert (await checks.send("POST", path, {"channels": "ops"}))[1]["channels"] == "ops"
    assert (await checks.send("POST", path, {"channels": ""}))[1]["channels"] == ""
    assert await checks.error("POST", path, {"channels": "oops"}) == (400, "invalid channel identifier: oops")
    assert await checks.error("POST", path, {"channels": "ops,"}) == (400, "empty channel identifier")


# unique


async def test_unique_finds_the_check_that_is_there(checks: Checks) -> None:
    first = await checks.made(name="Backup", tags="prod", grace=60)
    for given, status in (
        ({"name": "Backup", "unique": ["name"], "desc": "found"}, 200),
        ({"name": "Backup", "tags": "prod", "unique": ["name", "tags"]}, 200),
        ({"grace": 60, "unique": ["grace"]}, 200),
        ({"name": "Backup", "unique": ["name", "slug"]}, 201),  # one of them is not given
        ({"name": "Other", "unique": ["name"]}, 201),
        ({"name": "Backup", "timeout": 60, "unique": ["name", "timeout"]}, 201),
        ({"name": "Backup", "unique": []}, 201),
    ):
        answered, check = await checks.send("POST", "checks/", given)
        assert answered == status, given
        assert (check["uuid"] == first["uuid"]) == (status == 200)
    _, seen = await checks.send("GET", f"checks/{first['uuid']}")
    assert (seen["desc"], seen["tags"], seen["grace"], seen["timeout"]) == ("found", "prod", 60, 86_400)


async def test_a_check_that_unique_finds_keeps_what_is_not_given(checks: Checks) -> None:
    daily = await checks.made(name="Backup", schedule="0 3 * * *", tz="Europe/Berlin")
    await checks.made(name="Often", timeout=60)
    for name, field, kept in (("Backup", "schedule", "0 3 * * *"), ("Often", "timeout", 60)):
        given = {"name": name, "unique": ["name"], "desc": "found"}
        status, check = await checks.send("POST", "checks/", given)
        assert (status, check["desc"], check[field]) == (200, "found", kept)
    given = {"name": "Backup", "unique": ["name"], "timeout": 120}
    status, check = await checks.send("POST", "checks/", given)
    assert (status, check["uuid"], check["timeout"]) == (200, daily["uuid"], 120)


async def test_a_check_that_unique_finds_by_an_earlier_version_keeps_its_slug(checks: Checks) -> None:
    await checks.made(name="Other", slug="backup")
    mine = await checks.made(name="Backup", slug="mine", tags="prod")
    path = f"checks/{mine['uuid']}"
    for version in (1, 2, 3):
        given: dict[str, Any] = {"name": "Backup", "unique": ["name"], "desc": f"v{version}"}
        status, check = await checks.send("POST", "checks/", given, version=version)
        assert (status, check["slug"], check["desc"]) == (200, "mine", f"v{version}")
        _, check = await checks.send("POST", path, {"name": "Backup", "desc": "again"}, version=version)
        assert (check["slug"], check["desc"]) == ("mine", "again")
    for name, slug in (("Weekly", "weekly"), ("Backup", "weekly")):  # of the second, the slug is taken
        given = {"name": name, "tags": "prod", "unique": ["tags"]}
        status, check = await checks.send("POST", "checks/", given, version=1)
        assert (status, check["uuid"], check["name"], check["slug"]) == (200, mine["uuid"], name, slug)
    _, check = await checks.send("POST", path, {"name": "Daily", "slug": "given"}, version=1)
    assert (check["name"], check["slug"]) == ("Daily", "given")


# Versions


async def test_earlier_versions_make_the_slug_of_the_name(checks: Checks) -> None:
    for version, slugs in ((1, ["nightly-backup", "nightly-backup-2"]), (2, ["nightly-backup-3"]), (3, [""])):
        for slug in slugs:
            given = {"name": "Nightly Backup"}
            status, check = await checks.send("POST", "checks/", given, version=version)
            assert (status, check["slug"]) == (201, slug)
            assert check["update_url"].startswith(f"{checks.root}/api/v{version}/checks/")
    path = f"checks/{check['uuid']}"
    assert (await checks.send("POST", path, {"name": "Weekly"}, version=2))[1]["slug"] == "weekly"
    _, renamed = await checks.send("POST", path, {"name": "Nightly backup"}, version=2)
    assert (renamed["name"], renamed["slug"]) == ("Nightly backup", "weekly")  # the slug is taken


async def test_a_slug_is_one_monitors_own(checks: Checks) -> None:
    await checks.made(slug="backup")
    status, sentence = await checks.error("POST", "checks/", {"slug": "backup"})
    assert (status, sentence.partition(":")[0]) == (409, 'another monitor has the slug "backup"')


# Keys


async def test_without_a_good_key_nothing_is_told(checks: Checks) -> None:
    check = await checks.made(name="Backup")
    path = f"checks/{check['uuid']}"
    wrong = dict.fromkeys(("nobody", "jobs", "pinger", "x" * 600), "wrong api key")
    for key, sentence in {None: "missing api key", "": "missing api key", **wrong}.items():
        for method, asked in (("GET", "checks/"), ("POST", "checks/"), ("GET", path), ("DELETE", path)):
            assert await checks.error(method, asked, key=key) == (401, sentence)


async def test_the_key_may_come_in_the_body_of_a_post_or_as_a_bearer_token(checks: Checks) -> None:
    assert (await checks.send("POST", "checks/", {"api_key": "rw", "name": "A"}, key=None))[0] == 201
    assert await checks.error("POST", "checks/", {"api_key": "ro"}, key=None) == (401, "wrong api key")
    assert await checks.error("GET", "checks/", {"api_key": "rw"}, key=None) == (401, "missing api key")
    bearer = {"Authorization": "Bearer rw"}
    assert (await checks.send("GET", "checks/", key=None, headers=bearer))[0] == 200


async def test_a_read_only_key_sees_and_does_not_touch(checks: Checks) -> None:
    check = await checks.made(name="Backup", tags="prod")
    await checks.ping(check)
    _, answer = await checks.send("GET", "checks/", key="ro")
    (seen,) = answer["checks"]
    assert not {"uuid", "ping_url", "update_url", "pause_url", "resume_url", "channels"} & set(seen)
    assert seen["unique_key"] == unique_key(check["uuid"])
    path = f"checks/{seen['unique_key']}"
    assert await checks.send("GET", path, key="ro") == (200, seen)
    assert len((await checks.send("GET", f"{path}/flips/", key="ro"))[1]["flips"]) == 1
    assert set((await checks.send("GET", "badges/", key="ro"))[1]["badges"]) == {"*", "prod"}
    for method, asked in (
        ("POST", "checks/"),
        ("POST", path),
        ("DELETE", path),
        ("POST", f"{path}/pause"),
        ("POST", f"{path}/resume"),
        ("GET", f"{path}/pings/"),
        ("GET", f"{path}/pings/1/body"),
        ("GET", "channels/"),
    ):
        assert await checks.error(method, asked, key="ro") == (401, "wrong api key")


async def test_the_checks_of_others_are_not_there(checks: Checks) -> None:
    check = await checks.made(name="Backup")
    for key in ("team", "stranger"):
        assert (await checks.send("GET", "checks/", key=key))[1] == {"checks": []}
        for name in (check["uuid"], unique_key(check["uuid"])):
            own = await checks.error("GET", f"checks/{name}", key=key)
            assert own == (404, f'no monitor "{name}": list your monitors to see their ids')
            assert (await checks.error("DELETE", f"checks/{name}", key=key))[0] == 404
    _, sentence = await checks.error("GET", f"checks/{UNKNOWN}")
    assert sentence.startswith(f'no monitor "{UNKNOWN}"')


# What is refused

REFUSED = [
    (b"{", "could not parse request body"),
    (b"\xff", "could not parse request body"),
    (b"[]", "json validation error: value is not an object"),
    (b"null", "json validation error: value is not an object"),
    ({"name": 1}, "json validation error: name is not a string"),
    ({"name": None}, "json validation error: name is not a string"),
    ({"name": "x" * 101}, "json validation error: name is too long"),
    ({"timeout": 59}, "json validation error: timeout is too small"),
    ({"timeout": 31_536_001}, "json validation error: timeout is too large"),
    ({"timeout": "60"}, "json validation error: timeout is not a number"),
    ({"timeout": None}, "json validation error: timeout is not a number"),
    ({"grace": 10**12}, "json validation error: grace is too large"),
    ({"grace": 60.5}, "json validation error: grace is not a number"),
    ({"slug": "Backup"}, "json validation error: slug does not match pattern"),
    ({"methods": "GET"}, "json validation error: methods has unexpected value"),
    ({"manual_resume": 1}, "json validation error: manual_resume is not a boolean"),
    ({"unique": "name"}, "json validation error: unique is not an array"),
    ({"unique": ["status"]}, "json validation error: an item in 'unique' has unexpected value"),
    ({"success_kw": "x" * 201}, "json validation error: success_kw is too long"),
    ({"schedule": "61 * * * *"}, "json validation error: schedule is not a valid cron or OnCalendar exp"),
    ({"tz": "Mars/Olympus"}, "json validation error: tz is not a valid timezone"),
    ({"tags": "x" * 101}, "json validation error: tags has unexpected value"),
]


async def test_what_is_off_is_told_in_their_words_and_changes_nothing(checks: Checks) -> None:
    check = await checks.made(name="Backup")
    for given, sentence in REFUSED:
        for path in ("checks/", f"checks/{check['uuid']}"):
            status, told = await checks.error("POST", path, given)
            assert status == 400
            assert told.startswith(sentence), (given, told)
    _, answer = await checks.send("GET", "checks/")
    assert answer == {"checks": [check]}


async def test_beyond_the_limit_no_check_is_made(open_api: Callable[..., Awaitable[Any]]) -> None:
    checks = Checks(await open_api(max_monitors_per_tenant=1))
    await checks.made()
    assert (await checks.error("POST", "checks/"))[0] == 403


async def test_while_the_ledger_is_away_it_says_so(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*arguments: Any, **options: Any) -> None:
        raise Unavailable("the disk at /srv/secret is full")

    monkeypatch.setattr(checks.api.cron._house.watch.monitors, "list", away)
    status, sentence = await checks.error("GET", "checks/")
    assert status == 503
    assert "/srv" not in sentence


# Pages and other odds


async def test_a_page_may_ask_and_a_proxy_names_the_root(checks: Checks) -> None:
    assert await checks.send("OPTIONS", "checks/", key=None) == (204, "")
    assert (await checks.send("GET", "status/", key=None)) == (200, "OK")
    headers = {"Origin": "https://page.example", "Host": "cron.example"}
    status, check = await checks.send("POST", "checks/", {}, headers=headers)
    assert (status, check["ping_url"]) == (201, f"http://cron.example/ping/{check['uuid']}")


async def test_a_get_may_carry_the_body_null_and_any_content_type(checks: Checks) -> None:
    check = await checks.made(name="Backup")
    headers = {"Content-Type": "text/plain"}
    for path in ("checks", f"checks/{check['uuid']}/flips", "badges", "channels"):
        assert (await checks.send("GET", path, b"null", headers=headers))[0] == 200
