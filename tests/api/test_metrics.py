"""``/metrics``: what it tells whom, and that the page of reference lists every series."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from carapace_cron.ledger.depth import Depth
from carapace_cron.metrics import GAUGES, Count, Metrics, Spread
from carapace_cron.model.actor import Actor

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
PEOPLE = {
    "prometheus": Actor("default", "prometheus", frozenset({"monitors:read"})),
    "grafana": Actor("default", "grafana", frozenset({"jobs:read"})),
    "watcher": Actor("acme", "alice", frozenset({"monitors"})),
}
A_MONITOR = {"name": "Nightly backup", "tags": ["prod"], "periodSeconds": 3600, "graceSeconds": 60}

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def text_of(api: Any, who: str = "prometheus") -> str:
    api.house.people.known.update(PEOPLE)
    response = await api.house.get("/metrics", headers={"Authorization": f"Bearer {who}"})
    assert response.status == 200, await response.text()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return str(await response.text())


async def series(api: Any, who: str = "prometheus") -> Series:
    families = text_string_to_metric_families(await text_of(api, who))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def make_monitor(api: Any) -> str:
    """Of the watcher's."""
    made = await api.cron._house.watch.monitors.create(PEOPLE["watcher"], A_MONITOR)
    return str(made.watched.monitor.id)


def value(found: Series, name: str, **labels: str) -> float:
    return found[f"carapace_cron_{name}", frozenset(labels.items())]


async def test_a_run_is_counted_on_its_whole_way(api: Any) -> None:
    job = await api.create(cronExpression="* * * * *")
    await api.clock.advance(61)
    (run,) = await api.runs(jobId=job["id"])
    await api.run_in(run["id"])

    async def told() -> bool:
        return value(await series(api), "delivery_tries_total", kind="gateway", result="delivered") == 1

    await api.until(told)
    found = await series(api)
    assert value(found, "due_instants_total", fate="run") == 1
    assert value(found, "attempts_ended_total", outcome="success") == 1
    assert value(found, "runs_ended_total", outcome="success") == 1
    assert value(found, "run_lateness_seconds_count", trigger="schedule") == 1
    assert value(found, "run_lateness_seconds_bucket", trigger="schedule", le="2.5") == 1
    assert value(found, "attempt_duration_seconds_count") == 1
    assert value(found, "delivery_tries_total", kind="gateway", result="delivered") == 1
    assert value(found, "jobs_scheduled") == 1
    assert value(found, "ready") == 1
    assert value(found, "object_store_requests_total", operation="put", result="ok") >= 1
    assert value(found, "ledger_commit_seconds_count") == value(found, "ledger_batch_writes_count") > 0
    assert value(found, "scheduler_last_pass_age_seconds") <= 1


async def test_what_waits_shows_as_a_depth(open_api: Any) -> None:
    api = await open_api(max_concurrent_runs=1)
    job = await api.create(command="agent: hang")
    first = await api.data("run", {"jobId": job["id"]})
    other = await api.create(command="agent: hang")
    await api.data("run", {"jobId": other["id"]})
    await api.run_in(first["id"], {"running"})
    await api.clock.advance(30)
    found = await series(api)
    assert value(found, "queue_runs", state="running") == 1
    assert value(found, "queue_runs", state="queued") == 1
    assert value(found, "queue_oldest_due_seconds") == pytest.approx(30, abs=1)
    assert (value(found, "slots"), value(found, "slots_taken")) == (1, 1)


async def test_pings_and_monitors_are_counted(api: Any) -> None:
    monitor_id = await make_monitor(api)
    await (await api.house.get(f"/ping/{monitor_id}")).read()
    await (await api.house.get(f"/ping/{monitor_id}/fail")).read()
    found = await series(api)
    assert value(found, "pings_total", kind="success") == value(found, "pings_total", kind="fail") == 1
    assert value(found, "pings_refused_total") == 0
    assert value(found, "monitors", status="down") == 1
    assert value(found, "watchman_last_look_age_seconds") >= 0


async def test_the_gateway_as_a_whole_is_the_operators_to_see(api: Any) -> None:
    await api.create()
    assert "carapace_cron_jobs_scheduled 1.0" in await text_of(api, "grafana")
    for who in ("alice", "ada", "charlie", "watcher"):
        text = await text_of(api, who)
        assert "carapace_cron" not in text and "process_" not in text, who


async def test_monitors_are_shown_to_those_who_may_read_them(api: Any) -> None:
    await make_monitor(api)
    mine = {name: dict(labels) for name, labels in await series(api, "watcher")}
    assert mine["hc_check_up"]["name"] == "Nightly backup"
    for who in ("prometheus", "charlie"):
        text = await text_of(api, who)
        assert "hc_checks_total 0" in text and "Nightly" not in text
    assert await text_of(api, "alice") == ""  # jobs:write reads no monitors


async def test_no_label_tells_whose_it_is(api: Any) -> None:
    await api.create(name="Payroll of Acme", channelId="gateway")
    text = await text_of(api)
    for told in ("acme", "alice", "Payroll", "job_1"):
        assert told not in text


REFUSED = [({}, 401), ({"Authorization": "Bearer nobody"}, 401), ({"X-Api-Key": "pinger"}, 403)]


async def test_it_wants_a_token_that_may_read(api: Any) -> None:
    for headers, status in REFUSED:
        response = await api.house.get("/metrics", headers=headers)
        assert response.status == status
        assert "carapace_cron" not in await response.text()


# The page


def listed() -> dict[str, tuple[str, str]]:
    """name → (type, labels), as the page's tables have it."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, ", ".join(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def declared() -> dict[str, tuple[str, str]]:
    counted = Metrics()
    found = {f"{one.name}_total": ("counter", ", ".join(one.labels)) for one in counted.counts}
    found |= {one.name: ("histogram", ", ".join(one.labels)) for one in counted.spreads}
    return found | {one.name: ("gauge", ", ".join(one.labels)) for one in GAUGES}


def test_the_page_lists_every_series_and_no_other() -> None:
    ours = {name: row for name, row in listed().items() if name.startswith("carapace_cron_")}
    assert ours == declared()


async def test_what_is_served_is_what_is_declared(api: Any) -> None:
    await api.create()
    served = {}
    for family in text_string_to_metric_families(await text_of(api)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        served[name] = family.type
    ours = {name: kind for name, kind in served.items() if name.startswith("carapace_cron_")}
    assert ours == {name: kind for name, (kind, _) in declared().items()}
    others = {name for name in served if not name.startswith("carapace_cron_")}
    assert others <= listed().keys()


# What counting costs

MOST_MICROSECONDS = 3.0  # under one on an idle machine; a busy one still shows a lock or a library


def microseconds(count: Any, times: int = 20_000) -> float:
    """Of one call, the best of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            count()
        rounds.append((time.perf_counter() - began) / times * 1e6)
    return min(rounds)


def test_counting_costs_next_to_nothing() -> None:
    count = Count("c", "", ("outcome",), [("success",)])
    spread = Spread("s", "", Metrics().run_lateness.bounds, ("trigger",), [("schedule",)])
    assert microseconds(lambda: count.add("success")) < MOST_MICROSECONDS
    assert microseconds(lambda: spread.observe(0.7, "schedule")) < MOST_MICROSECONDS


def test_a_number_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    spread = Spread("s", "", (1, 5))
    for number in (0, 1, 1.5, 5, 6):
        spread.observe(number)
    assert spread.values[()].counts == [2, 2, 1]
    assert spread.values[()].total == 13.5


def test_a_depth_is_of_numbers_alone() -> None:
    """Nothing in it could name a tenant, but the ids of channels, which become kinds."""
    assert set(Depth.__annotations__) == {
        "queued", "held", "running", "oldest_due", "waiting", "oldest_notice", "monitors",
    }  # fmt: skip
