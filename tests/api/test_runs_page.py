"""docs/reference/runs.md shows what happens: each of its stories is played, and its picture is drawn anew.

A story is a block of text: the jobs, what people do and when, and the picture that comes of it. Whoever
changes one runs ``python -m pytest tests/api/test_runs_page.py`` and finds the new picture in the failure.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from carapace_cron.ports.host import AgentCall, AgentReply

from .conftest import NOON, Api, OpenApi

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "runs.md").read_text()
BLOCK = re.compile(r"^## ([^\n]+)\n|^```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
TIME = r"\d\d:\d\d"
JOB = re.compile(
    r"(?P<name>[A-Z]): (?P<schedule>.+?)(  (?P<fields>\{.*\}))?  (?P<minutes>\d+) min(?P<ends>(, [a-z]+)*)"
)
DEED = re.compile(rf"(?P<at>{TIME}) (?P<method>[a-z]+) (?P<params>\{{.*\}})")
DOWN = re.compile(rf"(?P<since>{TIME})–(?P<until>{TIME}) no gateway")
SETTINGS = re.compile(r"settings (\{.*\})")
MARGIN = 12  # columns of the picture before the first instant


@dataclass
class Acted:
    """A job of a story: how long each attempt works, and how each ends; the last end is all others', too."""

    name: str
    fields: dict[str, Any]
    minutes: float
    ends: list[str]
    begun: int = 0


@dataclass
class Story:
    """What a block of the page tells, and what its picture spans."""

    title: str
    text: str
    jobs: list[Acted] = field(default_factory=list)
    deeds: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    downs: list[tuple[int, int]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def picture(self) -> str:
        return self.text.partition("\n\n")[2].rstrip("\n")

    @property
    def header(self) -> str:
        return self.picture.partition("\n")[0]

    def __post_init__(self) -> None:
        for line in self.text.partition("\n\n")[0].splitlines():
            if job := JOB.fullmatch(line):
                self.jobs.append(_acted(job))
            elif deed := DEED.fullmatch(line):
                self.deeds.append((_minute(deed["at"]), deed["method"], json.loads(deed["params"])))
            elif down := DOWN.fullmatch(line):
                self.downs.append((_minute(down["since"]), _minute(down["until"])))
            elif settings := SETTINGS.fullmatch(line):
                self.settings = json.loads(settings[1])
            else:
                raise AssertionError(f"{self.title}: what does this say? {line}")
        ticks = [(match.start(), _minute(match[0])) for match in re.finditer(TIME, self.header)]
        (first, began), (second, went_on), *_ = ticks
        self.scale = (second - first) / (went_on - began)
        self.until = ticks[-1][1]


def _acted(match: re.Match[str]) -> Acted:
    fields = json.loads(match["fields"] or "{}") | {"cronExpression": match["schedule"]}
    ends = [one.strip() for one in match["ends"].split(",") if one.strip()]
    return Acted(match["name"], fields, float(match["minutes"]), ends or ["success"])


def _minute(text: str) -> int:
    """Minutes after noon."""
    return (int(text[:2]) - 12) * 60 + int(text[3:])


def stories() -> Iterator[Any]:
    title, numbers = "", itertools.count(1)
    for match in BLOCK.finditer(PAGE):
        if match[1]:
            title, numbers = match[1], itertools.count(1)
        else:
            name = f"{title} {next(numbers)}"
            yield pytest.param(Story(name, match[2]), id=name)


class Stage:
    """A gateway that plays one story, stopped and started again as the story says."""

    def __init__(self, open_api: OpenApi, story: Story) -> None:
        self._open_api = open_api
        self._story = story

    async def play(self) -> str:
        api = await self._opened()
        for job in self._story.jobs:
            command = f"agent: work {job.name}"
            made = await api.create(name=job.name, command=command, **self._named(job.fields))
            self._story.ids[job.name] = made["id"]
        for at, what in self._scenes():
            await _until(api, at)
            if isinstance(what, tuple):
                await api.data(what[0], await self._with_run_ids(api, self._named(what[1])))
            else:
                await self._open_api.stop()
                api.clock.step(timedelta(minutes=what - at))
                api = await self._opened()
        await _until(api, self._story.until - 1 / 60)  # what is due at the very end is not drawn
        return await self._drawn(api)

    def _scenes(self) -> list[tuple[int, Any]]:
        """(minute, what somebody does then, or the minute until which there is no gateway)"""
        deeds = [(at, (method, params)) for at, method, params in self._story.deeds]
        return sorted([*deeds, *self._story.downs], key=lambda scene: scene[0])

    async def _opened(self) -> Api:
        api = await self._open_api(**self._story.settings)
        for job in self._story.jobs:
            api.agents.doing[job.name] = self._doing(api, job)
        return api

    def _doing(self, api: Api, job: Acted) -> Any:
        async def work(call: AgentCall) -> AgentReply:
            job.begun += 1
            end = job.ends[min(job.begun, len(job.ends)) - 1]
            await api.clock.wait(asyncio.Event(), job.minutes * 60)
            return AgentReply("", end, "it said no" if end == "failure" else None)

        return work

    def _named(self, value: Any) -> Any:
        """`value` with ids for the jobs' names, and the day before each time."""
        text = json.dumps(value)
        for name, job_id in self._story.ids.items():
            text = text.replace(f'"{name}"', f'"{job_id}"')
        return json.loads(re.sub(rf'"({TIME})"', r'"2026-01-30T\1:00Z"', text))

    async def _with_run_ids(self, api: Api, params: dict[str, Any]) -> dict[str, Any]:
        """``{"runId": "A 12:05"}`` with the id of that run."""
        if "runId" not in params:
            return params
        named = {self._label(run): run["id"] for run in await api.runs(limit=500)}
        return {**params, "runId": named[params["runId"]]}

    def _label(self, run: dict[str, Any]) -> str:
        name = next(name for name, job_id in self._story.ids.items() if job_id == run["jobId"])
        return f"{name} {run['scheduledFor'][11:16]}"

    async def _drawn(self, api: Api) -> str:
        lines = [self._story.header]
        for since, until in self._story.downs:
            lines.append(self._line("no gateway", [(since, until, "x")], ""))
        runs = sorted(await api.runs(limit=500), key=lambda run: (run["scheduledFor"], self._label(run)))
        for run in runs:
            house = api.cron._house
            assert house is not None
            lines.append(self._row(run, await house._ledger.attempts(run["id"]), api.clock.now()))
        return "\n".join(line.rstrip() for line in lines)

    def _row(self, run: dict[str, Any], attempts: list[dict[str, Any]], now: datetime) -> str:
        since, until = self._since(run), _after_noon(run["finishedAt"] or now)
        spans = [(one["started_at"], one["finished_at"] or now) for one in attempts]
        works = [(_after_noon(begin), _after_noon(end), "=") for begin, end in spans]
        if run["status"] in ("skipped", "missed") and "passed before" not in run["reason"]:
            waits = []  # it was decided when it came due, or for a time without a gateway
            works = [(since, since, "-")]
        else:
            waits = [(since, until, ".")]
            works = works or [(until, until, "-")] * (run["status"] != "queued")
        why = "" if run["trigger"] == "schedule" else f", {run['trigger']}"
        return self._line(self._label(run), [*waits, *works], run["status"] + why)

    def _since(self, run: dict[str, Any]) -> float:
        """When a run is first there: at its instant, or when somebody asked for that."""
        due = _after_noon(run["scheduledFor"])
        if run["trigger"] != "backfill":
            return due
        return next(at for at, method, _ in self._story.deeds if method == "backfill")

    def _line(self, label: str, parts: list[tuple[float, float, str]], end: str) -> str:
        width = round(self._story.until * self._story.scale) + 1
        cells = [" "] * width
        for since, until, sign in parts:
            first = max(round(since * self._story.scale), 0)
            for cell in range(first, max(round(until * self._story.scale), first + 1)):
                if cell < width:
                    cells[cell] = sign
        return f"{label:<{MARGIN}}{''.join(cells)}  {end}"


async def _until(api: Api, minute: float) -> None:
    await api.clock.advance((NOON + timedelta(minutes=minute) - api.clock.now()).total_seconds())


def _after_noon(at: datetime | str) -> float:
    instant = datetime.fromisoformat(at) if isinstance(at, str) else at
    return (instant - NOON).total_seconds() / 60


@pytest.mark.parametrize("story", list(stories()))
async def test_a_story_of_the_page_goes_as_it_is_drawn(open_api: OpenApi, story: Story) -> None:
    assert await Stage(open_api, story).play() == story.picture


def test_the_page_has_stories() -> None:
    assert len(list(stories())) >= 15
