"""A coming instant as people read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Upcoming:
    """An instant, what clocks in the schedule's zone show then, and what a clock change did to it."""

    at: datetime
    """In UTC."""
    local: str
    """``Mon 2026-11-23 09:00 EST``."""
    note: str | None
    """``02:30 does not exist that day; runs at 03:00 when clocks go forward``, or None on an ordinary day."""
