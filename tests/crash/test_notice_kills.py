"""Each notice arrives, wherever between its cause and its record the gateway is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from crash.notice_kills import BEFORE_THE_RECORD, BEFORE_THE_SEND, OVERRUN_SECONDS, Kills, kills

AFTER_ITS_END = "ledger.record_ends.after"
RUNS = (
    ("hook", AFTER_ITS_END),
    ("hook", BEFORE_THE_SEND),
    ("hook", BEFORE_THE_RECORD),
    ("pager", AFTER_ITS_END),
    ("pager", BEFORE_THE_RECORD),
)


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Kills]:
    async with kills(tmp_path) as told:
        yield told


async def test_the_result_of_a_run_arrives(story: Kills) -> None:
    seen = story.receivers
    for channel, failpoint in RUNS:
        seen.works, known, resolved = False, len(seen.notices), len(seen.resolved)
        await story.die_at(failpoint, lambda channel=channel: story.run(channel))
        await story.heal()
        times = 2 if failpoint == BEFORE_THE_RECORD else 1
        if channel == "hook":
            assert seen.told()[known:] == ["run.completed failure"], failpoint
            assert seen.came[list(seen.notices)[-1]] == times, "under the same key"
        else:
            assert list(seen.open.values()) == [times], "one incident, by its dedup key"
        await story.recover()
        assert seen.open == {} and len(seen.resolved) - resolved == (channel == "pager")
    assert seen.changed == [], "a notice that is sent again is the same notice"


@pytest.mark.parametrize("failpoint", ["pings.record.after", BEFORE_THE_RECORD])
async def test_the_flip_of_a_ping_arrives(story: Kills, failpoint: str) -> None:
    await story.die_at(failpoint, lambda: story.ping("/fail"))
    await it_is_told(story, sent_twice=failpoint == BEFORE_THE_RECORD)


async def test_the_flip_of_silence_arrives(story: Kills) -> None:
    await story.gateway.start()
    await story.ping("/start")
    await story.gateway.kill()
    await asyncio.sleep(OVERRUN_SECONDS)  # no gateway runs when its time is over
    await story.die_at("watchlist.look.after", lambda: asyncio.sleep(0))
    await it_is_told(story)


async def it_is_told(story: Kills, *, sent_twice: bool = False) -> None:
    """Both channels heard that the monitor is down, once, and then that it is well."""
    seen = story.receivers
    assert sent_twice or not (seen.notices or seen.open), "nothing was sent before the kill"
    await story.heal()
    assert seen.told() == ["monitor.down down"] and len(seen.open) == 1
    sent = [*seen.came.values(), *seen.open.values()]
    assert sum(sent) > 2 if sent_twice else sent == [1, 1]
    await story.recover()
    assert seen.told()[1] == "monitor.up up" and len(seen.resolved) == 1 and seen.open == {}
    assert seen.changed == []
