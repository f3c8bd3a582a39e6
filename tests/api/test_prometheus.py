"""A real Prometheus reads what we serve, with the rules and the dashboard that we ship."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.prometheus import Programs, installed, prometheus

from carapace_cron.metrics import GAUGES, Metrics
from carapace_cron.model.actor import Actor

ROOT = Path(__file__).parents[2]
RULES = ROOT / "examples" / "prometheus-alerts.yml"
DASHBOARD = ROOT / "examples" / "grafana-dashboard.json"
CASES = Path(__file__).with_name("prometheus_alerts_test.yml")
OPERATOR = Actor("default", "prometheus", frozenset({"jobs:read"}))
WATCHER = Actor("default", "prometheus", frozenset({"monitors"}))
SCRAPED_SECONDS = 30.0  # until a Prometheus that has just started has two scrapes of everything
POLL_SECONDS = 0.2


@pytest.fixture(scope="module")
def programs() -> Programs:
    return installed()


def test_the_rules_are_sound_and_each_alert_is_for_its_trouble(programs: Programs, tmp_path: Path) -> None:
    assert "SUCCESS: 15 rules found" in programs.promtool("check", "rules", str(RULES))
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.read_text().replace("RULES", str(RULES)))
    assert "SUCCESS" in programs.promtool("test", "rules", str(cases))


async def test_promtool_finds_nothing_to_mend_in_our_series(api: Any, programs: Programs) -> None:
    api.house.people.known["operator"] = OPERATOR
    await api.create()
    response = await api.house.get("/metrics", headers={"Authorization": "Bearer operator"})
    programs.promtool("check", "metrics", given=await response.text())


async def test_prometheus_scrapes_us_and_the_rules_and_panels_find_their_numbers(
    api: Any, tmp_path: Path
) -> None:
    people = api.house.people.known
    people.update(operator=OPERATOR, watcher=WATCHER)
    await api.cron._house.watch.monitors.create(WATCHER, {"name": "Backup", "periodSeconds": 60})
    job = await api.create(cronExpression="* * * * *")
    await api.clock.advance(61)
    (run,) = await api.runs(jobId=job["id"])
    await api.run_in(run["id"])
    target = f"127.0.0.1:{api.house.server.port}"
    with prometheus(tmp_path, target=target, token="watcher", rules=RULES) as url:
        async with aiohttp.ClientSession(url) as client:
            await until_scraped(client)
            assert await ask(client, 'carapace_cron_runs_ended_total{outcome="success"}') == [1.0]
            assert await ask(client, 'hc_check_up{name="Backup"}') == [1.0]
            for rule in await all_rules(client):
                assert (rule["health"], rule["lastError"]) == ("ok", None), rule
            for title, expression in panels():
                assert await ask(client, expression), f'the panel "{title}" is empty: {expression}'


async def until_scraped(client: aiohttp.ClientSession) -> None:
    """Until there are rates: two scrapes, and the rules were looked at once."""
    async with asyncio.timeout(SCRAPED_SECONDS):
        while True:
            scrapes = await ask(client, 'count_over_time(up{job="carapace_cron"}[1m])')
            looked_at = all(rule["health"] != "unknown" for rule in await all_rules(client))
            if scrapes and scrapes[0] >= 2 and looked_at:
                return
            await asyncio.sleep(POLL_SECONDS)


async def ask(client: aiohttp.ClientSession, expression: str) -> list[float]:
    async with client.get("/api/v1/query", params={"query": expression}) as response:
        answer = await response.json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    return [float(one["value"][1]) for one in answer["data"]["result"]]


async def all_rules(client: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with client.get("/api/v1/rules") as response:
        groups = (await response.json())["data"]["groups"]
    return [{"lastError": None, **rule} for group in groups for rule in group["rules"]]


# The dashboard


def panels() -> Iterator[tuple[str, str]]:
    """(title, expression), with Grafana's variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            yield panel["title"], expression


def test_rules_and_panels_read_series_that_there_are() -> None:
    counted = Metrics()
    known = {f"{one.name}_total" for one in counted.counts} | {one.name for one in GAUGES}
    known |= {one.name + part for one in counted.spreads for part in ("_bucket", "_sum", "_count")}
    read = {*re.findall(r"carapace_cron_\w+", RULES.read_text())} - {"carapace_cron_monitors"}
    read |= {name for _, text in panels() for name in re.findall(r"carapace_cron_\w+", text)}
    assert read and read <= known, read - known


def test_panels_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
