"""Schedules in words.

Times of day come from cron-descriptor. What it says of days is wrong where a list mixes kinds
("1W,15" loses the 15th) and where a star makes both fields count, so days and months are said here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from cron_descriptor import ExpressionDescriptor, Options

from carapace_cron.schedule.calendar import Calendar, Window
from carapace_cron.schedule.cron import Cron
from carapace_cron.schedule.days import ALL_DAYS, ALL_WEEKDAYS, Days, bits
from carapace_cron.schedule.public_holidays import PublicHolidays
from carapace_cron.schedule.rrule import RuleText
from carapace_cron.schedule.wall import DAY

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_EPOCH = datetime(1970, 1, 1)
_EPOCH_DAY = date(1970, 1, 1)
_NTH = ("", "first", "second", "third", "fourth", "fifth")
_UNITS = {
    "YEARLY": "year",
    "MONTHLY": "month",
    "WEEKLY": "week",
    "DAILY": "day",
    "HOURLY": "hour",
    "MINUTELY": "minute",
    "SECONDLY": "second",
}


def cron_in_words(cron: Cron) -> str:
    """
    >>> from carapace_cron.schedule.cron import parse_cron
    >>> cron_in_words(parse_cron("0 9 * * MON-FRI"))
    'At 09:00, Monday to Friday'
    >>> cron_in_words(parse_cron("0 9 1W,15 * MON#2"))
    'At 09:00, on the 15th and the workday nearest to the 1st, or on the second Monday of the month'
    """
    fields = cron.text.split()
    clock, month = fields[:-3], fields[-2]
    words, when = _descriptor(" ".join([*clock, "*", "*", "*"])), _days_in_words(cron.pattern.days)
    if month != "*":
        months = [_MONTHS[number - 1] for number in bits(cron.pattern.months)]
        when += f"{', ' if when else ''}in {_listed(_runs(months, list(bits(cron.pattern.months))))}"
    return f"{words}, {when}" if when else words


def rule_in_words(rule: RuleText, start: int) -> str:
    """A recurrence rule, with the reading it starts at.

    >>> from carapace_cron.schedule.rrule import parse_rrule
    >>> rule_in_words(parse_rrule("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;BYHOUR=9;BYMINUTE=0"), 0)
    'Every 2 weeks, on Monday and Friday, at hour 9, at minute 0, from 1970-01-01 00:00:00'
    """
    unit = _UNITS[rule.frequency]
    parts = [f"Every {unit}" if rule.interval == 1 else f"Every {rule.interval} {unit}s"]
    if rule.weekdays:
        parts.append("on " + _listed([_nth_weekday(day, nth) for day, nth in rule.weekdays]))
    parts += [f"{_RULE_PARTS[key]} {_listed([str(n) for n in ns])}" for key, ns in rule.numbers.items()]
    parts += [f"{rule.count} times"] if rule.count else []
    parts += [f"until {_moment(rule.until.wall)}{' UTC' * rule.until.in_utc}"] if rule.until else []
    return ", ".join([*parts, f"from {_moment(start)}"])


_RULE_PARTS = {
    "BYMONTH": "in month",
    "BYMONTHDAY": "on day of the month",
    "BYYEARDAY": "on day of the year",
    "BYWEEKNO": "in week",
    "BYSETPOS": "of these number",
    "BYHOUR": "at hour",
    "BYMINUTE": "at minute",
    "BYSECOND": "at second",
}


def calendar_in_words(calendar: Calendar) -> str:
    """What a calendar excludes, without its zone.

    >>> from carapace_cron.schedule.zone import load_zone
    >>> night, noon = Window((4, 5), 22 * 3600, 6 * 3600), Window(tuple(range(7)), 43200, 46800)
    >>> calendar_in_words(Calendar(load_zone("UTC"), dates=(20812,), windows=(night, noon)))
    'on 2026-12-25, from 22:00 to 06:00 the day after on Friday and Saturday, and from 12:00 to 13:00'
    """
    dates = [str(_EPOCH_DAY + timedelta(days=day)) for day in calendar.dates]
    parts = [_holidays(calendar.holidays)] if calendar.holidays is not None else []
    parts += [f"on {_listed(_cut(dates, 'date'))}"] if dates else []
    parts += _cut([*map(_window, calendar.windows), *_spans(calendar)], "blackout")
    return ", and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


_KNOWN_LONG_ENOUGH = 2090  # nearly all holidays are known until 2100
_MOST_SAID = 3  # dates, and blackouts; the others are counted


def _cut(said: list[str], what: str) -> list[str]:
    """
    >>> _cut(["a", "b", "c", "d", "e"], "date")
    ['a', 'b', 'c', '2 more dates']
    """
    more = len(said) - _MOST_SAID
    return [*said[:_MOST_SAID], f"{more} more {what}{'s' if more > 1 else ''}"] if more > 0 else said


def _holidays(holidays: PublicHolidays) -> str:
    known = f" (known until {holidays.known_until})" if holidays.known_until < _KNOWN_LONG_ENOUGH else ""
    return f"on {_listed(list(holidays.categories))} holidays of {holidays.name}{known}"


def _window(window: Window) -> str:
    names = [_WEEKDAYS[day] for day in window.weekdays]
    days = "" if len(names) == len(_WEEKDAYS) else "on " + _listed(_runs(names, list(window.weekdays)))
    if (window.begin, window.end) == (0, DAY):
        return days or "on every day"
    later = " the day after" if window.end <= window.begin else ""
    return f"from {_time(window.begin)} to {_time(window.end)}{later}" + (f" {days}" if days else "")


def _time(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}"


def _spans(calendar: Calendar) -> Iterator[str]:
    for span in calendar.spans:
        begin, end = (datetime.fromtimestamp(at, UTC).astimezone(calendar.place.info) for at in span)
        yield f"from {begin:%a %Y-%m-%d %H:%M %Z} to {end:%a %Y-%m-%d %H:%M %Z}"


def _descriptor(text: str) -> str:
    options = Options()
    options.use_24hour_time_format = True
    return str(ExpressionDescriptor(text, options).get_description())


def _days_in_words(days: Days) -> str:
    of_month, of_week = _month_days(days), _week_days(days)
    if of_month and of_week:
        return f"{of_month}, {'or' if days.either else 'if it is'} {of_week}"
    return of_month or of_week


def _month_days(days: Days) -> str:
    if days.of_month == ALL_DAYS:
        return ""
    plain = list(bits(days.of_month))
    steps = {later - earlier for earlier, later in pairwise(plain)}
    if len(plain) > 3 and len(steps) == 1 and steps != {1}:
        step = steps.pop()
        said = [f"every {_ordinal(step)} day from the {_ordinal(plain[0])} to the {_ordinal(plain[-1])}"]
    else:
        said = _runs([f"the {_ordinal(day)}" for day in plain], plain)
    said += [f"the workday nearest to the {_ordinal(day)}" for day in days.nearest_workday]
    said += ["the last workday"] if days.last_workday else []
    said += ["the last day"] if days.from_end else []
    return f"on {_listed(said)}" + (" of the month" if days.last_workday or days.from_end else "")


def _week_days(days: Days) -> str:
    if days.of_week == ALL_WEEKDAYS:
        return ""
    plain = list(bits(days.of_week))
    said = _runs([_WEEKDAYS[day] for day in plain], plain)
    if len(said) == 1 and len(plain) > 2 and not days.nth_of_week and not days.last_of_week:
        return said[0]  # "Monday to Friday"
    said += [f"the {_NTH[nth]} {_WEEKDAYS[day]}" for day, nth in days.nth_of_week]
    said += [f"the last {_WEEKDAYS[day]}" for day in bits(days.last_of_week)]
    return f"on {_listed(said)}" + (" of the month" if days.nth_of_week or days.last_of_week else "")


def _nth_weekday(day: int, nth: int) -> str:
    if nth == 0:
        return _WEEKDAYS[day]
    counted = "last" if nth == -1 else _ordinal(abs(nth)) + (" to last" if nth < 0 else "")
    return f"the {counted} {_WEEKDAYS[day]}"


def _runs(names: list[str], numbers: list[int]) -> list[str]:
    """Names, with three and more that follow each other drawn together.

    >>> _runs(["Mon", "Tue", "Wed", "Fri"], [0, 1, 2, 4])
    ['Mon to Wed', 'Fri']
    """
    found: list[str] = []
    begin = 0
    for place, number in enumerate(numbers):
        if place + 1 < len(numbers) and numbers[place + 1] == number + 1:
            continue
        run = names[begin : place + 1]
        found += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else run
        begin = place + 1
    return found


def _listed(names: list[str]) -> str:
    """
    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _ordinal(number: int) -> str:
    """
    >>> [_ordinal(n) for n in (1, 12, 23)]
    ['1st', '12th', '23rd']
    """
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _moment(wall: int) -> str:
    return f"{_EPOCH + timedelta(seconds=wall):%Y-%m-%d %H:%M:%S}"
