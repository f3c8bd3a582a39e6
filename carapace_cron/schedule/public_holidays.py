"""Public holidays by country: which days they are, asked of the `holidays` package, a year at a time.

The package is imported when the first job wants it: that costs 10 MB, which nobody else need pay. A day that
it does not know is an ordinary one, in years beyond its data, too (docs/decisions/holidays.md).
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from carapace_cron.schedule.edges import Edges, edges_of
from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.wall import DAY

if TYPE_CHECKING:
    from holidays import HolidayBase

YEARS_KEPT = 4_096  # of one country, subdivision and choice of categories each; some hundred bytes

_EPOCH = datetime(1970, 1, 1)
_MOST_LISTED = 20  # codes that a message lists
_SAID = {"uk": "GB"}  # codes that people use and ISO 3166 does not


@dataclass(frozen=True, slots=True)
class PublicHolidays:
    """The holidays of a country or a part of it. Made by `find_holidays`, so that it is one that exists."""

    country: str
    """ISO 3166-1 alpha-2: ``US``."""
    subdivision: str | None
    """The second part of an ISO 3166-2 code, ``CA``; None = what the whole country has in common."""
    categories: tuple[str, ...]
    """Of the package, in alphabetical order; nearly always ``("public",)``."""
    known_until: int = field(compare=False)
    """The last year that the package has data for."""

    @property
    def name(self) -> str:
        """``US-CA``, or ``DE``."""
        return self.country if self.subdivision is None else f"{self.country}-{self.subdivision}"

    def edges(self, wall: int) -> Edges:
        """The holidays, as wall seconds, in the year that a reading lies in, from its begin to its end."""
        return _edges_of_year(self, (_EPOCH + timedelta(seconds=wall)).year)


@lru_cache(1_000)
def find_holidays(country: str, subdivision: str | None, categories: tuple[str, ...]) -> PublicHolidays:
    """The holidays that are meant: codes in either case, a subdivision by its name, too.

    Raises `ScheduleError` for the field ``holidays.country``, ``….subdivision`` or ``….categories``, with
    what comes nearest.

    >>> find_holidays("de", "Bayern", ("public",)).name
    'DE-BY'
    """
    code = country.upper()
    if code not in _countries():
        raise ScheduleError("holidays.country", country, _nearest_country(country))
    kind = _kind(code)
    wanted = tuple(sorted(set(categories)))
    for category in wanted:
        if category not in kind.supported_categories:
            expected = f"{code} has {', '.join(sorted(kind.supported_categories))}"
            raise ScheduleError("holidays.categories", category, expected)
    part = None if subdivision is None else _subdivision(code, kind, subdivision)
    return PublicHolidays(code, part, wanted, kind.end_year)


@cache
def _countries() -> Mapping[str, str]:
    """The package's countries: name by code."""
    return {codes[1]: name.replace("_", " ").title() for name, codes in _registry().items()}


def _registry() -> Mapping[str, tuple[str, ...]]:
    """By name of the country: its class in the package, its alpha-2 code and its alpha-3 code."""
    from holidays.registry import COUNTRIES  # not at the top: see the beginning of this file

    return COUNTRIES


def _kind(code: str) -> type[HolidayBase]:
    import holidays

    kind: type[HolidayBase] = getattr(holidays, code).get_entity()
    return kind


def _nearest_country(country: str) -> str:
    wanted = country[:64].casefold().strip()
    by_name = {name.casefold(): code for code, name in _countries().items()}
    by_longer_code = {codes[2].casefold(): codes[1] for codes in _registry().values()}
    code = _SAID.get(wanted) or by_longer_code.get(wanted)
    # Two letters are near to half of all codes, which helps nobody.
    near = [code] if code else [by_name[name] for name in difflib.get_close_matches(wanted, by_name, n=3)]
    if not near:
        return "expected a country's ISO 3166-1 code, such as US, DE or JP"
    return "did you mean " + " or ".join(f"{code} ({_countries()[code]})" for code in near) + "?"


def _subdivision(country: str, kind: type[HolidayBase], given: str) -> str:
    if not kind.subdivisions:
        raise ScheduleError("holidays.subdivision", given, f"{country} has none: leave it out")
    codes = {name.casefold(): code for name, code in kind.subdivisions_aliases.items()}
    codes |= {code.casefold(): code for code in kind.subdivisions}
    wanted = given[:64].casefold().strip()
    if wanted in codes:
        return codes[wanted]
    near = difflib.get_close_matches(wanted, codes, n=3) if len(wanted) > 3 else []
    if near:
        remedy = "did you mean " + " or ".join(dict.fromkeys(codes[name] for name in near)) + "?"
    else:
        more = ", …" if len(kind.subdivisions) > _MOST_LISTED else ""
        remedy = f"{country} has {', '.join(kind.subdivisions[:_MOST_LISTED])}{more}"
    raise ScheduleError("holidays.subdivision", given, remedy)


@lru_cache(YEARS_KEPT)
def _edges_of_year(wanted: PublicHolidays, year: int) -> Edges:
    begin, end = _wall(date(year, 1, 1)), _wall(date(year + 1, 1, 1))
    return edges_of(((_wall(day), _wall(day) + DAY) for day in _days(wanted, year)), begin, end)


def _days(wanted: PublicHolidays, year: int) -> list[date]:
    with warnings.catch_warnings():
        # India's says that of the years after 2035 it knows only some days; those are taken.
        warnings.filterwarnings("ignore", "Requested Holidays are available only", UserWarning)
        found = _kind(wanted.country)(years=year, subdiv=wanted.subdivision, categories=wanted.categories)
    return [day for day in found if day.year == year]


def _wall(day: date) -> int:
    return (day - _EPOCH.date()).days * DAY
