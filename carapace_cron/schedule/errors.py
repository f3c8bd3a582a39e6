"""What a bad schedule is answered with: what was given, where, and what would do."""

from __future__ import annotations

from carapace_cron.errors import InvalidValue

_LONGEST_SHOWN = 80  # characters of the asker's text that a message repeats


class ScheduleError(InvalidValue):
    """A schedule, or the zone it should run in, that cannot be used as given.

    `field` is the part that is wrong (``"minute"``, ``"schedule"``, ``"timezone"``, …), `value` that part as
    it was given, `remedy` what would do.

    >>> print(ScheduleError("minute", "61", "expected 0–59", within="61 * * * *"))
    bad minute "61" in "61 * * * *": expected 0–59
    """

    def __init__(self, field: str, value: str, remedy: str, *, within: str | None = None) -> None:
        where = "" if within is None or within == value else f' in "{shown(within)}"'
        super().__init__(f'bad {field} "{shown(value)}"{where}: {remedy}', field=field)
        self.value = value
        self.remedy = remedy


def shown(text: str) -> str:
    """`text` as a message may repeat it: short, and with nothing in it that a terminal obeys.

    >>> print(shown("0 9\\n* * *"), shown("*" * 100)[-9:])
    0 9\\n* * * ********…
    """
    if len(text) > _LONGEST_SHOWN:
        text = text[: _LONGEST_SHOWN - 2] + "…"
    return "".join(char if char == "…" or " " <= char <= "~" else ascii(char)[1:-1] for char in text)
