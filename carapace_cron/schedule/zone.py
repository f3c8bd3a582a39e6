"""A time zone as plain integers: the stretches of constant offset between its clock changes.

Zone data comes from the `tzdata` package, never from the system's database: the two can disagree about
next week, and every gateway that shares jobs must agree on when they are due. The files are read from the
package directly, so that neither `PYTHONTZPATH` nor `zoneinfo`'s process-wide search path matters, and
nothing global is changed (docs/decisions/tzdata.md).

*Wall* seconds are what a clock on the wall shows, counted from 1970-01-01 00:00 as that clock shows it:
``wall = instant + offset``.
"""

from __future__ import annotations

import difflib
import importlib.resources
import io
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]  # ships data and one version string

from carapace_cron.schedule.errors import ScheduleError

FIRST_YEAR = 1900  # nothing before it is looked for; tzdata knows hardly any clock change before it
LAST_YEAR = 2199  # as systemd; nothing after it is promised
ALWAYS, FOREVER = -(10**15), 10**15  # bounds before and after all time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
_PROBE_STEP = 7 * _DAY  # the changes that a zone's yearly rule makes lie months apart
_HEADER = struct.Struct(">4s16x6l")  # RFC 8536, section 3.1: magic, version and padding, six counts


@dataclass(frozen=True, slots=True)
class Zone:
    """The clock changes of a zone up to the end of `LAST_YEAR`.

    Stretch `i` begins at the instant `starts[i]` and has the constant `offsets[i]` (seconds east of UTC).
    `highs[i]` is the bound below which every wall reading has been reached or passed before it begins, so
    that ``starts[i] + offsets[i] > highs[i]`` says that clocks skipped readings there, and ``<`` that
    readings repeat. It has one entry more, for the end of all stretches.
    """

    name: str
    info: ZoneInfo = field(compare=False, repr=False)
    starts: tuple[int, ...] = field(compare=False, repr=False)
    offsets: tuple[int, ...] = field(compare=False, repr=False)
    highs: tuple[int, ...] = field(compare=False, repr=False)

    def stretch_at(self, instant: int) -> int:
        """Which stretch `instant` (Unix seconds) lies in."""
        return bisect_right(self.starts, instant) - 1

    def stretch_end(self, stretch: int) -> int:
        """The first instant after a stretch."""
        return self.starts[stretch + 1] if stretch + 1 < len(self.starts) else FOREVER

    def stretch_reaching(self, wall: int) -> int:
        """The stretch in which clocks first show `wall`, or at whose start they first have passed it."""
        return bisect_right(self.highs, wall) - 1

    def wall_at(self, instant: int) -> int:
        return instant + self.offsets[self.stretch_at(instant)]

    def wall_start(self, stretch: int) -> int:
        """What clocks show at the first instant of a stretch."""
        return self.starts[stretch] + self.offsets[stretch]


@cache  # bounded: what is not a name of the database raises, and is not kept
def load_zone(name: str) -> Zone:
    """The zone of that name.

    Raises `ScheduleError` for the field ``timezone``, with the names that come nearest.
    """
    if name not in zone_names():
        raise ScheduleError("timezone", name, _nearest(name))
    data = importlib.resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
    info = ZoneInfo.from_file(io.BytesIO(data), key=name)
    starts, offsets = [ALWAYS], [_offset(info, _year_start(FIRST_YEAR))]
    for change in _changes(data, info):
        offset = _offset(info, change)
        if offset != offsets[-1] and change > _year_start(FIRST_YEAR):
            starts.append(change)
            offsets.append(offset)
    return Zone(name, info, tuple(starts), tuple(offsets), tuple(_highs(starts, offsets)))


@cache
def zone_names() -> frozenset[str]:
    """All names of the IANA database, older aliases (``US/Eastern``, ``EST5EDT``) included."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text().split())


def tzdata_version() -> str:
    """The IANA release in use, such as ``2026f``. Kept with what was computed from it."""
    return str(tzdata.IANA_VERSION)


def _nearest(name: str) -> str:
    # Fixed offsets are no help: Etc/GMT+2 lies two hours west of Greenwich, and EST has no summer time.
    places = sorted(known for known in zone_names() if "/" in known and not known.startswith("Etc/"))
    by_folded = {known.casefold(): known for known in ("UTC", *places)}
    by_folded |= {known.casefold().rsplit("/", 1)[-1]: known for known in places}
    wanted = name[:64].casefold().replace(" ", "_")
    near = difflib.get_close_matches(wanted, by_folded, n=3, cutoff=0.6)
    if not near:
        return "expected an IANA name such as America/New_York, Europe/Berlin or UTC"
    return "did you mean " + " or ".join(dict.fromkeys(by_folded[folded] for folded in near)) + "?"


def _changes(data: bytes, info: ZoneInfo) -> Iterator[int]:
    """All instants at which something about the zone changes, ascending: the listed ones, then the rule's."""
    listed = _listed_changes(data)
    yield from listed
    yield from _changes_by_rule(info, after=listed[-1] if listed else _year_start(FIRST_YEAR))


def _listed_changes(data: bytes) -> tuple[int, ...]:
    """The transition times of a TZif file: those of its second, 64-bit block (RFC 8536, section 3)."""
    _, utc_flags, std_flags, leaps, times, types, chars = _HEADER.unpack_from(data)
    second = _HEADER.size + times * 5 + types * 6 + chars + leaps * 8 + std_flags + utc_flags
    count = _HEADER.unpack_from(data, second)[4]
    return struct.unpack_from(f">{count}q", data, second + _HEADER.size)


def _changes_by_rule(info: ZoneInfo, *, after: int) -> Iterator[int]:
    """The changes past the listed ones, where a yearly rule such as ``M3.2.0`` holds.

    Such a rule depends on nothing but the weekday that a year begins with and on the year's length, so
    each of the 14 kinds of years is searched once, and the others of its kind are like it.
    """
    known: dict[tuple[int, int], list[int]] = {}
    for year in range((_EPOCH + timedelta(seconds=after)).year, LAST_YEAR + 1):
        begin, end = _year_start(year), _year_start(year + 1)
        kind = (begin // _DAY % 7, end - begin)
        # The year of the last listed change is only partly under the rule, and teaches nothing.
        if begin <= after:
            yield from (change for change in _search(info, begin, end) if change > after)
            continue
        if kind not in known:
            known[kind] = [change - begin for change in _search(info, begin, end)]
        yield from (begin + change for change in known[kind])


def _search(info: ZoneInfo, begin: int, end: int) -> Iterator[int]:
    """The offset's changes between two instants, by probing and bisection."""
    for low, high in pairwise([*range(begin, end, _PROBE_STEP), end]):
        before = _offset(info, low)
        if _offset(info, high) == before:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(info, middle) == before else (low, middle)
        yield high


def _highs(starts: list[int], offsets: list[int]) -> Iterator[int]:
    high = ALWAYS
    yield high
    for offset, end in zip(offsets, [*starts[1:], FOREVER], strict=True):
        high = max(high, end + offset)
        yield high


def _offset(info: ZoneInfo, instant: int) -> int:
    offset = (_EPOCH + timedelta(seconds=instant)).astimezone(info).utcoffset()
    assert offset is not None  # an aware datetime always has one
    return offset.days * _DAY + offset.seconds


def _year_start(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).days * _DAY
