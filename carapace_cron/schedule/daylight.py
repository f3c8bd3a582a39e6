"""The daylight-saving rule: from readings on the wall to instants, one rule for every zone and every year.

- A schedule that *follows real time* (its minute or hour field begins with ``*``) has an instant wherever
  clocks show one of its readings: none inside skipped time, both passes of repeated time.
- Any other *names local times*, and has one instant for each: the first at which clocks show it or have
  just skipped it. Of a repeated reading that is the first pass; a skipped one is due when clocks have gone
  forward, and all that were skipped there are one instant. A gap of more than three hours (a zone that
  moves across the date line) took its readings with it.

This is what Vixie's and Debian's cron do, without the corners in which they depend on when they are
started. Why, with time lines: docs/why/daylight-saving.md.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

from carapace_cron.schedule.wall import WallTimes
from carapace_cron.schedule.zone import Zone

LONGEST_GAP_MADE_UP = 3 * 3600  # seconds; Debian's cron(8) calls more than that a correction of the clock


class Rule(Protocol):
    """Instants, in whole Unix seconds, of readings in a zone."""

    def next_after(self, times: WallTimes, zone: Zone, instant: int) -> int | None: ...

    def previous(self, times: WallTimes, zone: Zone, instant: int) -> int | None: ...


class FollowsRealTime:
    """An instant wherever clocks show a reading."""

    def next_after(self, times: WallTimes, zone: Zone, instant: int) -> int | None:
        stretch = bisect_right(zone.starts, instant + 1) - 1  # as `Zone.stretch_at`
        wall = instant + 1 + zone.offsets[stretch]
        found = times.at_or_after(wall)
        while found is not None:
            at = found - zone.offsets[stretch]
            stretch += 1
            if stretch == len(zone.starts) or at < zone.starts[stretch]:
                return at
            begin = zone.wall_start(stretch)
            if not wall <= begin <= found:  # clocks went back behind `wall`, or forward past `found`
                wall, found = begin, times.at_or_after(begin)
        return None

    def previous(self, times: WallTimes, zone: Zone, instant: int) -> int | None:
        stretch = zone.stretch_at(instant - 1)
        wall = instant - 1 + zone.offsets[stretch]
        found = times.at_or_before(wall)
        while found is not None:
            at = found - zone.offsets[stretch]
            if at >= zone.starts[stretch]:
                return at
            stretch -= 1
            end = zone.starts[stretch + 1] - 1 + zone.offsets[stretch]
            if not found <= end <= wall:
                wall, found = end, times.at_or_before(end)
        return None


class NamesLocalTimes:
    """One instant for each reading, the first at which clocks show it or have just skipped it."""

    def next_after(self, times: WallTimes, zone: Zone, instant: int) -> int | None:
        stretch = bisect_right(zone.starts, instant + 1) - 1  # as `Zone.stretch_at`
        new = zone.highs[stretch]  # readings from here on are still to come
        shown = instant + 1 + zone.offsets[stretch]
        if shown > new and zone.starts[stretch] <= instant:
            new = shown
        while (wall := times.at_or_after(new)) is not None:
            if wall >= zone.highs[stretch + 1]:
                stretch = zone.stretch_reaching(wall)
            if wall >= zone.starts[stretch] + zone.offsets[stretch]:
                return wall - zone.offsets[stretch]
            if (end_of_gap := _instant_of(wall, zone, stretch)) is not None:
                return end_of_gap
            new = zone.wall_start(stretch)
        return None

    def previous(self, times: WallTimes, zone: Zone, instant: int) -> int | None:
        stretch = zone.stretch_at(instant - 1)
        reached = max(instant - 1 + zone.offsets[stretch], zone.highs[stretch] - 1)
        while (wall := times.at_or_before(reached)) is not None:
            stretch = zone.stretch_reaching(wall)
            at = _instant_of(wall, zone, stretch)
            if at is not None:
                return at
            reached = zone.highs[stretch] - 1
        return None


def first_instant(wall: int, zone: Zone) -> int | None:
    """When clocks first show `wall` or have just skipped it; None when over three hours were skipped."""
    return _instant_of(wall, zone, zone.stretch_reaching(wall))


def is_skipped(wall: int, zone: Zone) -> bool:
    """Whether clocks jump over that reading."""
    return wall < zone.wall_start(zone.stretch_reaching(wall))


def is_repeated(wall: int, zone: Zone) -> bool:
    """Whether clocks show that reading more than once."""
    stretch = zone.stretch_reaching(wall)
    following = stretch + 1
    return following < len(zone.starts) and zone.wall_start(following) <= wall < zone.highs[following]


def _instant_of(wall: int, zone: Zone, stretch: int) -> int | None:
    if wall >= zone.wall_start(stretch):
        return wall - zone.offsets[stretch]
    if zone.offsets[stretch] - zone.offsets[stretch - 1] > LONGEST_GAP_MADE_UP:
        return None
    return zone.starts[stretch]


FOLLOWS_REAL_TIME = FollowsRealTime()
NAMES_LOCAL_TIMES = NamesLocalTimes()
