"""Each field of a job: its bounds, and one sentence for what lies beyond them. Nothing is changed then."""

from __future__ import annotations

from typing import Any

from carapace_cron.model.job import JobDraft

LONG = "x" * 10_000
AT = "2026-12-01T09:00:00Z"
INSTANT = "an instant such as 2026-12-01T09:00:00Z"

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # what is given | the field that the answer names | the sentence
    ({"name": None}, "name", "missing required field name"),
    ({"name": None, "cronExpression": None, "command": None, "channelId": None}, "name",
     "missing required fields name, schedule, command, channelId"),
    ({"name": 5}, "name", "bad name 5: expected a text"),
    ({"name": "  "}, "name", 'bad name "  ": expected a text that is not empty'),
    ({"name": "a\nb"}, "name", 'bad name "a\\nb": expected one line without control characters'),
    ({"name": "x" * 201}, "name", f'bad name "{"x" * 56}…": expected at most 200 characters'),
    ({"description": "x" * 2001}, "description",
     f'bad description "{"x" * 56}…": expected at most 2000 characters'),
    ({"cronExpression": None}, "schedule", "missing required field schedule"),
    ({"cronExpression": "61 * * * *"}, "cronExpression", 'bad minute "61" in "61 * * * *": expected 0–59'),
    ({"cronExpression": None, "schedule": "61 * * * *"}, "schedule",
     'bad minute "61" in "61 * * * *": expected 0–59'),
    ({"schedule": "0 10 * * *"}, "cronExpression",
     "schedule and cronExpression are two names of one field and differ: give one of them"),
    ({"cronExpression": "0 0 31 2 *"}, "cronExpression",
     'bad schedule "0 0 31 2 *": names a day that no year has'),
    ({"cronExpression": "*/10 * * * * *"}, "cronExpression",
     'bad schedule "*/10 * * * * *": is due every 10 s; expected at least 60 s'),
    ({"cronExpression": "at 2026-01-30T11:59:59Z"}, "cronExpression",
     'bad schedule "at 2026-01-30T11:59:59Z": never due after 2026-01-30T12:00:00Z; expected a later '
     "instant"),
    ({"timezone": "America/New_Yrok"}, "timezone",
     'bad timezone "America/New_Yrok": did you mean America/New_York or America/Nuuk or America/Nome?'),
    ({"timezone": 3}, "timezone", "bad timezone 3: expected a text"),
    ({"command": ""}, "command", 'bad command "": expected a text that is not empty'),
    ({"command": "echo " + "x" * 4096}, "command",
     f'bad command "echo {"x" * 51}…": expected at most 4096 characters'),
    ({"command": "http://127.0.0.1/"}, "command",
     "address not allowed: expected a public host, or one that the operator allows (URL_ALLOW)"),
    ({"command": "http://metadata.internal/latest"}, "command",
     "address not allowed: expected a public host, or one that the operator allows (URL_ALLOW)"),
    ({"command": "http://user:pw@example.com/"}, "command",
     'bad URL "…": a name or password before the host is not sent; use an Authorization header'),
    ({"command": "echo hi; rm -rf /"}, "command",
     'bad shell command: ";" is not allowed outside quotes; no shell runs this, so it would mean itself or '
     "nothing"),
    ({"command": "echo `id`"}, "command",
     'bad shell command: "`" is not allowed outside quotes; no shell runs this, so it would mean itself or '
     "nothing"),
    ({"command": "agent: nobody"}, "command",
     'unknown agent "nobody": expected one of this gateway\'s agents (fail, generate-report, hang, work)'),
    ({"command": "agent:"}, "command",
     "bad agent command: expected a name after agent:, such as agent: generate-report --daily"),
    ({"deadlineSeconds": 0}, "deadlineSeconds", "bad deadlineSeconds 0: expected more than 0"),
    ({"catchUpLimit": 1001}, "catchUpLimit", "bad catchUpLimit 1001: expected at most 1000"),
    ({"catchUpOrder": "random"}, "catchUpOrder",
     'bad catchUpOrder "random": expected "newestFirst" or "oldestFirst"'),
    ({"pauseAfterFailures": 0}, "pauseAfterFailures", "bad pauseAfterFailures 0: expected at least 1"),
    ({"retry": {"on": ["6xx"]}}, "retry.on.0",
     'bad retry.on.0 "6xx": expected failure, timeout, lost, an HTTP status such as 503, or 5xx for a class'),
    ({"after": [{"jobId": "job_1", "when": "never"}]}, "after.0.when",
     'bad after.0.when "never": expected "success", "failure" or "end"'),
    ({"channelId": "gatway"}, "channelId",
     'unknown channel "gatway": expected one of gateway (did you mean "gateway"?)'),
    ({"channelId": ["gateway"]}, "channelId", 'bad channelId ["gateway"]: expected a text'),
    ({"enabled": "yes"}, "enabled", 'bad enabled "yes": expected true or false'),
    ({"timeoutSeconds": 0}, "timeoutSeconds", "bad timeoutSeconds 0: expected more than 0"),
    ({"timeoutSeconds": 86401}, "timeoutSeconds", "bad timeoutSeconds 86401: expected at most 86400"),
    ({"timeoutSeconds": "300"}, "timeoutSeconds", 'bad timeoutSeconds "300": expected a number'),
    ({"timeoutSeconds": True}, "timeoutSeconds", "bad timeoutSeconds true: expected a number"),
    ({"retry": 3}, "retry", "bad retry 3: expected an object"),
    ({"retry": {"maxAttempts": 0}}, "retry.maxAttempts", "bad retry.maxAttempts 0: expected at least 1"),
    ({"retry": {"maxAttempts": 21}}, "retry.maxAttempts", "bad retry.maxAttempts 21: expected at most 20"),
    ({"retry": {"maxAttempts": 1.5}}, "retry.maxAttempts",
     "bad retry.maxAttempts 1.5: expected a whole number"),
    ({"retry": {"initialSeconds": -1}}, "retry.initialSeconds",
     "bad retry.initialSeconds -1: expected at least 0"),
    ({"retry": {"initialSeconds": 3601}}, "retry.initialSeconds",
     "bad retry.initialSeconds 3601: expected at most 3600"),
    ({"retry": {"factor": 0.5}}, "retry.factor", "bad retry.factor 0.5: expected at least 1"),
    ({"retry": {"factor": 11}}, "retry.factor", "bad retry.factor 11: expected at most 10"),
    ({"retry": {"maxSeconds": 86401}}, "retry.maxSeconds",
     "bad retry.maxSeconds 86401: expected at most 86400"),
    ({"retry": {"jitter": 1.1}}, "retry.jitter", "bad retry.jitter 1.1: expected at most 1"),
    ({"retry": {"tries": 3}}, "retry.tries", "unknown field 'retry.tries': leave it out"),
    ({"overlap": "maybe"}, "overlap",
     'bad overlap "maybe": expected "skip", "queue", "allow" or "cancelPrevious"'),
    ({"catchUp": "some"}, "catchUp", 'bad catchUp "some": expected "latest", "all" or "none"'),
    ({"catchUpWindowSeconds": -1}, "catchUpWindowSeconds",
     "bad catchUpWindowSeconds -1: expected at least 0"),
    ({"catchUpWindowSeconds": 2592001}, "catchUpWindowSeconds",
     "bad catchUpWindowSeconds 2592001: expected at most 2592000"),
    ({"jitterSeconds": 3601}, "jitterSeconds", "bad jitterSeconds 3601: expected at most 3600"),
    ({"jitterSeconds": 50, "deadlineSeconds": 50}, "deadlineSeconds",
     "bad deadlineSeconds 50: expected more than jitterSeconds, which is 50"),
    ({"startAt": "tomorrow"}, "startAt", f'bad startAt "tomorrow": expected {INSTANT}'),
    ({"startAt": 1769774400}, "startAt", f"bad startAt 1769774400: expected {INSTANT}"),
    ({"startAt": "2026-12-01T09:00:00"}, "startAt",
     'bad startAt "2026-12-01T09:00:00": expected an instant with a zone, such as 2026-12-01T09:00:00Z'),
    ({"startAt": "2200-01-01T00:00:00Z"}, "startAt",
     'bad startAt "2200-01-01T00:00:00Z": expected an instant from 1970 to 2199, such as '
     "2026-12-01T09:00:00Z"),
    ({"cronExpression": "at 2026-02-01T00:00:00Z", "startAt": AT}, "startAt",
     f"bad startAt {AT}: no instant of the schedule lies after it"),
    ({"endAt": "2026-01-30T13:00:00Z", "cronExpression": "0 14 * * *"}, "endAt",
     "bad endAt 2026-01-30T13:00:00Z: no instant of the schedule lies before it"),
    ({"endAt": "2026-01-01T00:00:00Z"}, "endAt",
     "bad endAt 2026-01-01T00:00:00Z: no instant of the schedule lies before it"),
    ({"excludeDates": "2026-12-25"}, "excludeDates", 'bad excludeDates "2026-12-25": expected a list'),
    ({"excludeDates": ["25.12."]}, "excludeDates.0",
     'bad excludeDates.0 "25.12.": expected a date such as 2026-12-25'),
    ({"excludeDates": ["1767225600"]}, "excludeDates.0", "expected a date such as 2026-12-25"),
    ({"excludeDates": ["2026-02-30"]}, "excludeDates.0",
     'bad excludeDates.0 "2026-02-30": no such date (day is out of range for month)'),
    ({"excludeDates": ["2200-01-01"]}, "excludeDates.0",
     'bad excludeDates.0 "2200-01-01": expected a date from 1970 to 2199, such as 2026-12-25'),
    ({"excludeDates": ["2026-12-25"] * 367}, "excludeDates", "expected at most 366 of them, found 367"),
    ({"excludeDates": ["2026-12-25"], "cronExpression": "at 2026-12-25T09:00"}, "excludeDates",
     'bad excludeDates: no instant of "at 2026-12-25T09:00" is left: all fall on excluded dates, on holidays '
     "or into blackouts; expected a calendar that leaves some"),
    ({"holidays": "US"}, "holidays", 'bad holidays "US": expected an object'),
    ({"holidays": {}}, "holidays.country", "missing required field 'holidays.country'"),
    ({"holidays": {"country": "UK"}}, "holidays.country",
     'bad holidays.country "UK": did you mean GB (United Kingdom)?'),
    ({"holidays": {"country": "DE", "subdivision": "Bayrn"}}, "holidays.subdivision",
     'bad holidays.subdivision "Bayrn": did you mean BY?'),
    ({"holidays": {"country": "US", "categories": ["bank"]}}, "holidays.categories",
     'bad holidays.categories "bank": US has government, half_day, public, unofficial'),
    ({"holidays": {"country": "US", "categories": []}}, "holidays.categories",
     "bad holidays.categories []: expected at least 1 of them"),
    ({"holidays": {"country": "DE"}, "cronExpression": "0 9 25 12 *"}, "holidays",
     'bad holidays: no instant of "0 9 25 12 *" is left'),
    ({"blackouts": [{}]}, "blackouts.0", "bad blackouts.0 {}: expected from and until, or days alone"),
    ({"blackouts": [{"from": "22:00"}]}, "blackouts.0",
     'bad blackouts.0 {"from": "22:00"}: expected from and until, or days alone'),
    ({"blackouts": [{"from": "22:00", "until": "25:00"}]}, "blackouts.0.until",
     'bad blackouts.0.until "25:00": expected a local time such as 22:00, or an instant with its zone such '
     "as 2026-12-24T18:00:00Z"),
    ({"blackouts": [{"from": "2026-12-24T18:00:00", "until": "2026-12-25T18:00:00"}]}, "blackouts.0.from",
     "expected a local time such as 22:00, or an instant with its zone such as 2026-12-24T18:00:00Z"),
    ({"blackouts": [{"from": "22:00", "until": "22:00"}]}, "blackouts.0",
     "expected until to differ from from; for whole days leave both out, and name the days"),
    ({"blackouts": [{"from": "24:00", "until": "06:00"}]}, "blackouts.0",
     "expected from to be 00:00–23:59; 24:00 is the end of a day"),
    ({"blackouts": [{"from": "22:00", "until": AT}]}, "blackouts.0",
     "expected from and until to be two local times or two instants"),
    ({"blackouts": [{"from": AT, "until": AT}]}, "blackouts.0", "expected until to be later than from"),
    ({"blackouts": [{"days": ["mon"], "from": AT, "until": "2026-12-02T09:00:00Z"}]}, "blackouts.0",
     "expected no days with two instants; weekdays go with local times such as 22:00"),
    ({"blackouts": [{"days": ["Monday"]}]}, "blackouts.0.days.0",
     'bad blackouts.0.days.0 "Monday": expected "mon", "tue", "wed", "thu", "fri", "sat" or "sun"'),
    ({"blackouts": [{"days": ["sat"]}] * 21}, "blackouts", "expected at most 20 of them, found 21"),
    ({"blackouts": [{"from": "08:00", "until": "10:00"}]}, "blackouts",
     'bad blackouts: no instant of "0 9 * * *" is left'),
    ({"maxRuns": 0}, "maxRuns", "bad maxRuns 0: expected at least 1"),
    ({"maxRuns": 1000000001}, "maxRuns", "bad maxRuns 1000000001: expected at most 1000000000"),
    ({"deleteAfterRun": 1}, "deleteAfterRun", "bad deleteAfterRun 1: expected true or false"),
    ({"tags": "daily"}, "tags", 'bad tags "daily": expected a list'),
    ({"tags": ["a b"]}, "tags.0",
     'bad tags.0 "a b": expected letters, digits, . _ : or -, a letter or digit first'),
    ({"tags": ["x" * 51]}, "tags.0", f'bad tags.0 "{"x" * 51}": expected at most 50 characters'),
    ({"tags": [str(n) for n in range(21)]}, "tags",
     'bad tags ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", …]: expected at most 20 of them, '
     "found 21"),
    ({"notify": "sometimes"}, "notify",
     'bad notify "sometimes": expected "always", "failure", "change" or "never"'),
    ({"monitor": "on"}, "monitor", 'bad monitor "on": expected an object'),
    ({"monitor": {"graceSeconds": 59}}, "monitor.graceSeconds",
     "bad monitor.graceSeconds 59: expected at least 60"),
    ({"monitor": {"channels": ["nowhere"]}}, "monitor",
     'unknown channel "nowhere": expected one of gateway'),
    ({"http": []}, "http", "bad http []: expected an object"),
    ({"http": {"method": "get"}}, "http.method",
     'bad http.method "get": expected "GET", "HEAD", "POST", "PUT", "PATCH" or "DELETE"'),
    ({"http": {"headers": {"X-A": 1}}}, "http.headers.X-A", "bad http.headers.X-A 1: expected a text"),
    ({"http": {"headers": {f"X-{n}": "a" for n in range(33)}}}, "http.headers",
     "expected at most 32 of them"),
    ({"command": "https://example.com/", "http": {"headers": {"Host": "a"}}}, "http.headers.Host", "Host"),
    ({"http": {"body": "x" * 65537}}, "http.body",
     f'bad http.body "{"x" * 56}…": expected at most 65536 characters'),
    ({"http": {"expectStatus": [99]}}, "http.expectStatus.0",
     "bad http.expectStatus.0 99: expected at least 100"),
    ({"http": {"expectStatus": 200}}, "http.expectStatus", "bad http.expectStatus 200: expected a list"),
    ({"idempotencyKey": ""}, "idempotencyKey", 'bad idempotencyKey "": expected a text that is not empty'),
    ({"idempotencyKey": "x" * 201}, "idempotencyKey", "expected at most 200 characters"),
    ({"cron": "@daily"}, "cron", 'unknown field "cron": expected '),
    ({"timeZone": "UTC"}, "timeZone", 'unknown field "timeZone": did you mean "timezone"?'),
    ({"channel_id": "gateway"}, "channel_id", 'unknown field "channel_id": did you mean "channelId"?'),
    ({"executionCount": 4}, "executionCount", 'field "executionCount" cannot be set: leave it out'),
    ({"id": "job_1"}, "id", 'field "id" cannot be set: leave it out'),
]  # fmt: skip


def test_the_table_has_every_field() -> None:
    tested = {field.split(".")[0] for _, field, _ in REFUSED}
    assert {str(field.alias) for field in JobDraft.model_fields.values()} <= tested


async def test_each_bad_value_is_refused_in_one_sentence_that_names_its_field(api: Any) -> None:
    job_id = (await api.create(idempotencyKey="made"))["id"]
    before = await api.data("list")
    wrong = []
    for fields, field, sentence in REFUSED:
        refusal = await api.refusal("create", [{**_job(), **fields}])
        if refusal.get("field") != field or sentence not in refusal["error"]:
            wrong.append((fields, refusal))
        assert await api.answer("validate", [{**_job(), **fields}]) == refusal
        if fields.keys() != {"schedule"}:  # alone it differs from nothing
            updating = await api.refusal("update", [job_id, fields])
            assert updating["code"] == refusal["code"], updating
    assert not wrong, "\n".join(map(str, wrong))
    assert await api.data("list") == before, "nothing was changed"


def _job() -> dict[str, Any]:
    return {"name": "N", "cronExpression": "0 9 * * *", "command": "date", "channelId": "gateway"}


FULL: dict[str, Any] = {
    "name": "All of it",
    "description": "each field\nat once",
    "schedule": "0 9 * * MON-FRI",
    "command": "https://api.example.com/report",
    "channelId": "gateway",
    "enabled": True,
    "timezone": "Europe/Berlin",
    "timeoutSeconds": 86400,
    "retry": {"maxAttempts": 20, "initialSeconds": 3600, "factor": 10, "maxSeconds": 86400, "jitter": 1,
              "on": ["timeout", "5xx", "429"]},
    "deadlineSeconds": 2592000,
    "pauseAfterFailures": 3,
    "after": [],
    "catchUpLimit": 1000,
    "catchUpOrder": "oldestFirst",
    "overlap": "cancelPrevious",
    "catchUp": "all",
    "catchUpWindowSeconds": 2592000,
    "jitterSeconds": 3600,
    "startAt": "2026-02-01T00:00:00Z",
    "endAt": "2027-02-01T00:00:00Z",
    "excludeDates": ["2026-12-24", "2026-12-31"],
    "holidays": {"country": "DE", "subdivision": "BY", "categories": ["public", "catholic"]},
    "blackouts": [
        {"from": "2026-12-24T12:00:00Z", "until": "2026-12-27T00:00:00Z"},
        {"days": ["sat", "sun"]},
        {"days": ["fri"], "from": "22:00", "until": "06:00"},
    ],
    "maxRuns": 1000000000,
    "deleteAfterRun": True,
    "tags": ["daily", "team:ops", "v1.2_x-y"],
    "notify": "change",
    "monitor": {
        "graceSeconds": 120, "maxRunSeconds": 900, "channels": ["gateway"], "notify": ["down", "late"],
        "reminders": [{"everySeconds": 3600, "channels": []}], "failuresBeforeAlert": 2,
        "failureRate": {"failures": 2, "of": 3}, "minIntervalSeconds": 60,
        "maintenance": [{"days": ["sun"]}], "quiet": [{"from": "22:00", "until": "06:00"}],
    },
    "http": {
        "method": "POST", "headers": {"X-Team": "ops"}, "body": '{"a": 1}', "expectStatus": [200, 204],
    },
    "idempotencyKey": "full-1",
}  # fmt: skip


async def test_a_job_with_every_field_is_kept_as_it_was_given(api: Any) -> None:
    assert {str(field.alias) for field in JobDraft.model_fields.values()} == set(FULL)
    job = await api.data("create", [FULL])
    kept = await api.data("get", [job["id"]])
    assert {name: kept[name] for name in FULL} == FULL


async def test_the_defaults_are_those_of_the_original(api: Any) -> None:
    job = await api.create()
    expected = {
        "timezone": "UTC",
        "timeoutSeconds": 300,
        "retry": {"maxAttempts": 4, "initialSeconds": 5, "factor": 2, "maxSeconds": 3600, "jitter": 0,
                  "on": []},
        "overlap": "skip",
        "catchUp": "latest",
        "catchUpWindowSeconds": 3600,
        "catchUpLimit": 100,
        "catchUpOrder": "newestFirst",
        "after": [],
        "jitterSeconds": 0,
        "deleteAfterRun": False,
        "excludeDates": [],
        "blackouts": [],
        "tags": [],
        "notify": "always",
        "enabled": True,
        "origin": "api",
        "revision": 1,
    }
    assert {name: job[name] for name in expected} == expected
    not_set = {
        "startAt", "endAt", "holidays", "maxRuns", "http", "idempotencyKey", "pausedReason", "monitor",
        "monitorId",
    }  # fmt: skip
    assert not not_set & set(job)


async def test_a_field_that_is_null_counts_as_not_given(api: Any) -> None:
    job = await api.create(timezone=None, description=None, retry=None, enabled=None, http=None)
    assert job["timezone"] == "UTC" and job["retry"]["maxAttempts"] == 4 and job["enabled"] is True


async def test_a_tag_given_twice_is_kept_once(api: Any) -> None:
    assert (await api.create(tags=["a", "b", "a"]))["tags"] == ["a", "b"]
