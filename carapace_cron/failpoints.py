"""Places at which a test lets the process die, before or after each call of a store. For tests only.

``CARAPACE_CRON_FAILPOINT=ledger.claim.after:3`` ends the process with SIGKILL when the third claim has been
recorded and nobody knows of it yet. Without the variable `failpoint` gives back the function that it was
given, so it costs nothing.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from carapace_cron.errors import ConfigurationError

VARIABLE = "CARAPACE_CRON_FAILPOINT"

POINTS = (
    "objects.get",
    "objects.put",
    "objects.delete",
    "objects.list",
    "ledger.record_due",
    "ledger.start_now",
    "ledger.backfill",
    "in_force.put",
    "ledger.claim",
    "ledger.release_held",
    "ledger.release_far",
    "ledger.renew",
    "ledger.abandoned",
    "ledger.record_ends",
    "ledger.cancel",
    "ledger.cancel_all",
    "ledger.prune",
    "pings.record",
    "badges.of",
    "watchlist.add",
    "watchlist.change",
    "watchlist.remove",
    "watchlist.look",
    "outbox.first_of",
    "outbox.take",
    "outbox.delivered",
    "outbox.retry_later",
    "outbox.give_up",
    "outbox.resend",
    "events.prune",
)
NAMES = tuple(f"{point}.{side}" for point in POINTS for side in ("before", "after"))

_FORM = re.compile(r"(?P<point>[a-z_.]+)\.(?P<side>before|after)(:(?P<nth>[1-9][0-9]{0,5}))?")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Failpoint:
    """The process ends when it has come `nth` times to this side of the point."""

    point: str
    side: Literal["before", "after"]
    nth: int = 1
    reached: int = 0

    @classmethod
    def parse(cls, text: str) -> Failpoint:
        """
        >>> Failpoint.parse("ledger.claim.after:3")
        Failpoint(point='ledger.claim', side='after', nth=3, reached=0)

        Raises `ConfigurationError` for a name that is none.
        """
        parts = _FORM.fullmatch(text)
        if parts is None or parts["point"] not in POINTS:
            raise ConfigurationError(
                f'bad {VARIABLE} "{text[:80]}": expected one of {", ".join(NAMES)}, and perhaps ":" and at '
                "which time it is to end the process, counted from 1"
            )
        side = cast(Literal["before", "after"], parts["side"])
        return cls(parts["point"], side, int(parts["nth"] or 1))

    def pass_by(self, side: str) -> None:
        """Count, and do not come back from the last one."""
        if side != self.side:
            return
        self.reached += 1
        if self.reached == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: F) -> F:
        """`function`, an async function or generator, with this point before and after it."""
        wrap = self._generator if inspect.isasyncgenfunction(function) else self._coroutine
        return cast(F, functools.wraps(function)(wrap(function)))

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def passing(*args: Any, **named: Any) -> Any:
            self.pass_by("before")
            answer = await function(*args, **named)
            self.pass_by("after")
            return answer

        return passing

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def passing(*args: Any, **named: Any) -> AsyncIterator[Any]:
            self.pass_by("before")
            async for one in function(*args, **named):
                yield one
            self.pass_by("after")

        return passing


def armed(environment: Mapping[str, str] = os.environ) -> Failpoint | None:
    """The point that the environment names, None when it names none. Raises `ConfigurationError`."""
    text = environment.get(VARIABLE, "")
    return Failpoint.parse(text) if text else None


def failpoint(point: str) -> Callable[[F], F]:
    """Stand before and after a function that calls a store; `point` is one of `POINTS`."""
    if point not in POINTS:
        raise ValueError(f"no failpoint {point!r}: add it to POINTS")
    if _ARMED is None or _ARMED.point != point:
        return lambda function: function
    return _ARMED.around


def _armed_at_import() -> Failpoint | None:
    try:
        return armed()
    except ConfigurationError:
        return None  # the start asks `armed` again and says what is wrong, in one sentence


_ARMED = _armed_at_import()
