"""No instant at all: ``never``. For jobs that run when they are asked to, or after another job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from carapace_cron.schedule.schedule import Schedule

NEVER = "never"


@dataclass(frozen=True, slots=True)
class Never(Schedule):
    """Comes due never."""

    def next_after_timestamp(self, seconds: int) -> int | None:
        return None

    def previous_timestamp(self, seconds: int) -> int | None:
        return None

    def describe(self) -> str:
        return "Never by itself: when it is asked to run, or after another job"

    def shortest_period(self) -> timedelta:
        return timedelta.max


def is_never(text: str) -> bool:
    """
    >>> is_never(" Never"), is_never("0 9 * * *")
    (True, False)
    """
    return text.strip().lower() == NEVER
