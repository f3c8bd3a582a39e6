"""Who sees and does what: Alice owns, Bob is in her team, Charlie administers another tenant."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from carapace_cron.api.methods import Methods, cron_methods

METHODS = cron_methods(Methods)  # type: ignore[arg-type]  # only signatures are read
UNKNOWN_JOB = "job_1769774400000_00000000000000000000"
UNKNOWN_RUN = "run_00000000000000000000000000"
MALFORMED = ("", "x", "job_1", "run_1", "../../jobs", "job_1769774400000_00000000000000000000\n", "x" * 5_000)

BY_JOB = {  # method: what it needs besides the id
    "get": {},
    "update": {"updates": {"name": "mine now"}},
    "pause": {},
    "resume": {},
    "delete": {},
    "restore": {},
    "run": {},
    "backfill": {"since": "2026-01-30T11:00:00Z"},
}
STRANGERS = ("bob", "charlie")


def without_the_id(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with what it repeats of the id taken out of its sentence."""
    envelope = answer["result"]
    return {**envelope, "error": re.sub(r'"[^"]*"', '"<id>"', envelope["error"])}


def test_the_matrix_names_every_method_that_takes_a_job_id() -> None:
    takes = {
        name.removeprefix("carapace.cron.")
        for name, method in METHODS.items()
        if inspect.signature(method).parameters.get("jobId", None) is not None
    }
    assert takes == {*BY_JOB, "runs", "events"}


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_foreign_an_unknown_and_a_malformed_job_id_get_the_same_answer(api: Any, who: str) -> None:
    job = await api.create(cronExpression="* * * * *")
    run = await api.data("run", [job["id"]])
    await api.run_in(run["id"])
    before = await api.data("get", [job["id"]])
    for method, rest in BY_JOB.items():
        foreign = await api.ask(method, {"jobId": job["id"], **rest}, who=who)
        assert foreign["result"]["code"] == "not_found", (method, foreign)
        for given in (UNKNOWN_JOB, *MALFORMED):
            answer = await api.ask(method, {"jobId": given, **rest}, who=who)
            assert without_the_id(answer) == without_the_id(foreign), (method, given)
    assert await api.data("get", [job["id"]]) == before, "nobody changed anything"


@pytest.mark.parametrize("who", STRANGERS)
async def test_runs_of_a_foreign_an_unknown_and_a_malformed_job_id_are_none(api: Any, who: str) -> None:
    job = await api.create()
    run = await api.data("run", [job["id"]])
    await api.run_in(run["id"])
    for given in (job["id"], UNKNOWN_JOB, *MALFORMED):
        for method in ("runs", "events"):
            assert await api.data(method, {"jobId": given}, who=who) == {"items": [], "nextCursor": None}
    assert len(await api.runs(jobId=job["id"])) == 1


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_foreign_an_unknown_and_a_malformed_run_id_get_the_same_answer(api: Any, who: str) -> None:
    job = await api.create(command="agent: hang")
    run = await api.data("run", [job["id"]])
    foreign = await api.ask("cancel", [run["id"]], who=who)
    assert foreign["result"]["code"] == "not_found"
    for given in (UNKNOWN_RUN, *MALFORMED):
        answer = await api.ask("cancel", [given], who=who)
        assert without_the_id(answer) == without_the_id(foreign), given
    assert (await api.run_in(run["id"], {"running"}))["status"] == "running"


@pytest.mark.parametrize("who", STRANGERS)
async def test_lists_counts_and_messages_hold_ones_own_only(api: Any, who: str) -> None:
    job = await api.create()
    await api.run_in((await api.data("run", [job["id"]]))["id"])
    assert await api.data("list", [], who=who) == []
    assert (await api.data("status", [], who=who))["totalJobs"] == 0
    assert await api.data("runs", {}, who=who) == {"items": [], "nextCursor": None}
    assert (await api.ask("carapace.gateway.messages", who=who))["result"] == {"items": []}


async def test_an_idempotency_key_of_another_user_is_another_key(api: Any) -> None:
    mine = await api.create(idempotencyKey="k")
    hers = await api.create(idempotencyKey="k", who="bob")
    assert mine["id"] != hers["id"] and hers["userId"] == "bob"


async def test_a_cursor_from_anothers_page_shows_nothing_of_theirs(api: Any) -> None:
    for _ in range(3):
        job = await api.create()
        await api.run_in((await api.data("run", [job["id"]]))["id"])
    page = await api.data("runs", {"limit": 1})
    assert (await api.data("runs", {"cursor": page["nextCursor"]}, who="bob"))["items"] == []
    listed = await api.answer("list", {"limit": 1})
    assert (await api.data("list", {"cursor": listed["nextCursor"]}, who="bob")) == []


class TestUserId:
    """The parameter `userId`: one's own, or for an admin anyone's of the tenant."""

    @pytest.mark.parametrize(
        ("method", "params"), [("list", {}), ("status", {}), ("create", {"data": {"name": "N"}})]
    )
    async def test_it_must_be_ones_own(self, api: Any, method: str, params: Any) -> None:
        refusal = await api.refusal(method, {**params, "userId": "bob"})
        assert refusal == {
            "success": False,
            "error": 'userId must be your own, "alice": only an admin acts for others',
            "code": "forbidden",
            "field": "userId",
        }

    async def test_an_admin_acts_for_others_of_the_tenant(self, api: Any) -> None:
        job = await api.data("create", {"data": _job(), "userId": "bob"}, who="ada")
        assert job["userId"] == "bob"
        assert [one["id"] for one in await api.data("list", ["bob"], who="ada")] == [job["id"]]
        assert (await api.data("get", [job["id"]], who="bob"))["id"] == job["id"]
        assert await api.data("list", [], who="ada") == []

    async def test_an_admin_of_another_tenant_acts_there(self, api: Any) -> None:
        job = await api.data("create", {"data": _job(), "userId": "alice"}, who="charlie")
        assert await api.data("list", ["alice"]) == [], "that is another alice"
        assert (await api.refusal("get", [job["id"]]))["code"] == "not_found"

    async def test_it_must_be_a_name(self, api: Any) -> None:
        refusal = await api.refusal("create", {"data": _job(), "userId": "a/b"}, who="ada")
        assert refusal["code"] == "invalid" and refusal["field"] == "userId"
        assert refusal["error"].startswith('bad userId "a/b": expected 1–100 letters')


def _job() -> dict[str, Any]:
    return {"name": "N", "schedule": "@daily", "command": "date", "channelId": "gateway"}


READS = {
    "list": [], "get": ["<job>"], "status": [], "runs": [], "events": [], "deliveries": [],
    "validate": [_job()], "preview": ["@daily"], "channels.list": [],
}  # fmt: skip
WRITES = {
    "create": [_job()], "update": ["<job>", {"name": "M"}], "pause": ["<job>"], "resume": ["<job>"],
    "run": ["<job>"], "backfill": ["<job>", "2026-01-30T11:00:00Z"], "cancel": [UNKNOWN_RUN],
    "deliveries.resend": [4711], "channels.test": ["gateway"], "delete": ["<job>"], "restore": ["<job>"],
}  # fmt: skip
ADMIN = {
    "tokens.create": ["acme", "eve", ["jobs:read"]], "tokens.list": [], "tokens.revoke": ["tok_1"],
}  # fmt: skip


MONITOR_READS = {
    "monitors.list": [], "monitors.get": ["<monitor>"], "monitors.pings": ["<monitor>"],
    "monitors.pingBody": ["<monitor>", 1], "monitors.flips": ["<monitor>"],
}  # fmt: skip
MONITOR_WRITES = {
    "monitors.create": [{}], "monitors.update": ["<monitor>", {"name": "M"}], "monitors.pause": ["<monitor>"],
    "monitors.resume": ["<monitor>"], "monitors.acknowledge": ["<monitor>"],
    "monitors.snooze": ["<monitor>"], "monitors.sign": ["<monitor>"], "monitors.delete": ["<monitor>"],
}  # fmt: skip


class TestScopesOfMonitors:
    """monitors:read reads, monitors reads and writes, admin does all; the others nothing here."""

    async def outcomes(self, api: Any, who: str, table: Any) -> set[str]:
        made = await api.data("monitors.create", [{}, "alice"], who="ada")
        found = set()
        for method, params in table.items():
            given = [made["id"] if one == "<monitor>" else one for one in params]
            found.add((await api.answer(method, given, who=who)).get("code", "ok"))
        return found

    @pytest.mark.parametrize(
        ("who", "reads", "writes"),
        [
            ("onlooker", {"ok", "not_found"}, {"forbidden"}),
            ("watcher", {"ok", "not_found"}, {"ok", "conflict"}),
            ("ada", {"ok", "not_found"}, {"ok", "conflict"}),
            ("alice", {"forbidden"}, {"forbidden"}),
            ("pinger", {"forbidden"}, {"forbidden"}),
        ],
    )
    async def test_each_does_what_it_says(
        self, api: Any, who: str, reads: set[str], writes: set[str]
    ) -> None:
        assert await self.outcomes(api, who, MONITOR_READS) == reads
        assert await self.outcomes(api, who, MONITOR_WRITES) == writes


class TestScopes:
    """jobs:read reads, jobs:write reads and writes, admin does all; the others nothing here."""

    def test_the_tables_name_every_method(self) -> None:
        named = READS | WRITES | ADMIN | MONITOR_READS | MONITOR_WRITES
        assert {f"carapace.cron.{name}" for name in named} == set(METHODS)

    async def outcomes(self, api: Any, who: str, table: Any) -> set[str]:
        job_id = (await api.create())["id"]
        found = set()
        for method, params in table.items():
            given = [job_id if one == "<job>" else one for one in params]
            found.add((await api.answer(method, given, who=who)).get("code", "ok"))
        return found

    @pytest.mark.parametrize(
        ("who", "reads", "writes", "admin"),
        [
            ("reader", {"ok"}, {"forbidden"}, {"forbidden"}),
            ("alice", {"ok"}, {"ok", "not_found"}, {"forbidden"}),
            ("ada", {"ok"}, {"ok", "not_found"}, {"ok", "not_found"}),
            ("pinger", {"forbidden"}, {"forbidden"}, {"forbidden"}),
        ],
    )
    async def test_each_does_what_it_says(
        self, api: Any, who: str, reads: set[str], writes: set[str], admin: set[str]
    ) -> None:
        assert await self.outcomes(api, who, READS) == reads
        assert await self.outcomes(api, who, WRITES) == writes
        assert await self.outcomes(api, who, ADMIN) == admin

    async def test_a_refusal_names_the_scope_that_is_missing(self, api: Any) -> None:
        refusal = await api.refusal("create", [_job()], who="reader")
        assert refusal["error"] == "this needs the scope jobs:write; the token has jobs:read"

    @pytest.mark.parametrize(
        ("method", "scopes"),
        [
            ("deliveries", "jobs:read, monitors:read"),
            ("events", "jobs:read, monitors:read"),
            ("channels.list", "jobs:read, monitors:read"),
            ("deliveries.resend", "jobs:write, monitors"),
            ("channels.test", "jobs:write, monitors"),
        ],
    )
    async def test_it_names_each_scope_that_would_do(self, api: Any, method: str, scopes: str) -> None:
        params = {"deliveries.resend": [1], "channels.test": ["gateway"]}.get(method, [])
        refusal = await api.refusal(method, params, who="pinger")
        assert refusal["error"] == f"this needs one of the scopes {scopes}; the token has ping"


class TestTokens:
    """Made, listed and revoked by admins; shown once; void from the next request on."""

    async def test_a_new_token_works_within_its_scopes(self, api: Any) -> None:
        made = await api.data("tokens.create", ["acme", "eve", ["jobs:read", "jobs:write"]], who="ada")
        assert set(made) == {"id", "token", "tenant", "user", "scopes"}
        job = await api.create(who=made["token"])
        assert job["userId"] == "eve"
        whoami = (await api.ask("carapace.gateway.whoami", who=made["token"]))["result"]
        assert whoami == {"tenant": "acme", "userId": "eve", "scopes": ["jobs:read", "jobs:write"]}

    async def test_the_list_shows_no_secret(self, api: Any) -> None:
        params = {"tenant": "acme", "user": "eve", "scopes": ["ping"]}
        made = await api.data("tokens.create", params, who="ada")
        listed = await api.data("tokens.list", [], who="ada")
        assert listed == [
            {
                "id": made["id"], "tenant": "acme", "user": "eve", "scopes": ["ping"],
                "createdAt": "2026-01-30T12:00:00Z",
            }
        ]  # fmt: skip

    async def test_a_revoked_token_fails_on_the_next_request(self, api: Any) -> None:
        made = await api.data("tokens.create", ["acme", "eve", ["jobs:read"]], who="ada")
        assert await api.data("list", [], who=made["token"]) == []
        assert await api.answer("tokens.revoke", [made["id"]], who="ada") == {"success": True}
        answer = await api.ask("list", [], who=made["token"])
        assert answer["error"]["code"] == -32001
        refusal = await api.refusal("tokens.revoke", {"id": made["id"]}, who="ada")
        assert refusal["error"] == f'no token "{made["id"]}" is in force: list the tokens to see their ids'

    async def test_a_revoked_token_ends_an_open_websocket_on_its_next_request(self, api: Any) -> None:
        made = await api.data("tokens.create", ["acme", "eve", ["jobs:read"]], who="ada")
        socket = await api.house.socket(made["token"])
        request = {"jsonrpc": "2.0", "id": 1, "method": "carapace.cron.list", "params": []}
        await socket.send_json(request)
        assert (await socket.receive_json())["result"]["success"] is True
        await api.data("tokens.revoke", [made["id"]], who="ada")
        await socket.send_json(request)
        assert (await socket.receive_json())["error"]["code"] == -32001
        assert (await socket.receive()).data == 1008, "closed for a breach of policy"
        await socket.close()

    @pytest.mark.parametrize("method", ["create", "list", "revoke"])
    async def test_a_tenants_admin_has_no_power_over_another_tenant(self, api: Any, method: str) -> None:
        made = await api.data("tokens.create", ["acme", "eve", ["jobs:read"]], who="ada")
        params = {"create": ["acme", "charlie", ["admin"]], "list": [], "revoke": [made["id"]]}[method]
        answer = await api.answer(f"tokens.{method}", params, who="charlie")
        if method == "list":
            assert answer["data"] == []
        else:
            assert answer["code"] == {"create": "forbidden", "revoke": "not_found"}[method]
        assert await api.data("list", [], who=made["token"]) == []

    async def test_the_operators_admin_makes_tokens_for_any_tenant(self, api: Any) -> None:
        operator = api.cron.new_admin_token
        made = await api.data("tokens.create", ["acme", "eve", ["admin"]], who=operator)
        assert made["id"] in {one["id"] for one in await api.data("tokens.list", [], who=operator)}
        assert await api.answer("tokens.revoke", [made["id"]], who=operator) == {"success": True}

    async def test_only_the_operators_admins_read_warnings_as_they_name_the_jobs_of_all(
        self, open_api: Any
    ) -> None:
        api = await open_api()
        operator = api.cron.new_admin_token
        key = "cron/jobs/job_1769774400000_0123456789abcdefghij.json"
        await api.cron._house._objects.put(key, b"half a docu", if_absent=True)
        api = await open_api()
        [warning] = (await api.data("status", [], who=operator))["warnings"]
        assert warning.startswith(f"{key} cannot be read: ")
        for who in ("charlie", "ada", "alice"):
            assert "warnings" not in await api.data("status", [], who=who)

    @pytest.mark.parametrize(
        ("params", "sentence"),
        [
            (["a/b", "eve", ["ping"]],
             'bad tenant "a/b": expected 1–100 letters, digits, @ . _ + or -, a letter or digit first'),
            (["acme", "", ["ping"]],
             'bad user "": expected 1–100 letters, digits, @ . _ + or -, a letter or digit first'),
            (["acme", "eve", []],
             "bad scopes: expected a list of jobs:read, jobs:write, admin, monitors, monitors:read, ping, "
             "host"),
            (["acme", "eve", ["root"]],
             'bad scope "root": expected one of jobs:read, jobs:write, admin, monitors, monitors:read, ping, '
             "host"),
        ],
    )  # fmt: skip
    async def test_bad_parameters_are_named(self, api: Any, params: Any, sentence: str) -> None:
        assert (await api.refusal("tokens.create", params, who="ada"))["error"] == sentence
