"""The few kinds of things that go wrong, one root. Adapters turn foreign exceptions into these.

Two families: `Refused` is the asker's to mend (bad value, no such job, no right) and its message is
meant for them; `Unavailable` is ours or a neighbour's to mend, and trying again later may help.
`carapace_cron/api/envelope.py` turns them into the answers of RPC methods and REST; `gateway/faults.py` and
the wire-compatible doors have forms of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CarapaceError(Exception):
    """Root of all errors of this package. `code` is stable and for machines, the message for people."""

    code = "internal"


class Refused(CarapaceError):
    """What was asked cannot be done as asked. The message has what was given, where, and what would do.

    `field` is the path of the offending value as the asker named it (``retry.maxAttempts``), or None
    when the request as a whole is meant.
    """

    code = "refused"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidValue(Refused, ValueError):
    """A value that is not of the expected form or range."""

    code = "invalid"


class NotFound(Refused, LookupError):
    """No such thing *for this asker*: a foreign id and an unknown id get the same answer."""

    code = "not_found"


class Forbidden(Refused):
    """The asker's token does not carry the scope that this needs."""

    code = "forbidden"


class Conflict(Refused):
    """The thing changed since the asker read it, or is in a state where this is not possible."""

    code = "conflict"


class QuotaExceeded(Refused):
    """More than the tenant's limit allows."""

    code = "quota_exceeded"


class AddressNotAllowed(Refused):
    """An outbound address that this gateway does not call. The tenant never hears which it resolved to."""

    code = "address_not_allowed"


class Unavailable(CarapaceError):
    """A store or service did not do its part; the same call may succeed later."""

    code = "unavailable"


class WorkStopped(CarapaceError):
    """The work was cancelled and has ended: raised by a runner in place of `asyncio.CancelledError`.

    `how` is small JSON that shows it, kept with the attempt: ``{"by": "SIGTERM", "processesLeft": 0}``.
    `output`: what the work had said until then.
    """

    def __init__(self, how: Mapping[str, Any], output: str = "") -> None:
        super().__init__("the work was stopped")
        self.how = dict(how)
        self.output = output


class ConfigurationError(CarapaceError):
    """The operator's settings, a plugin manifest or a hook is wrong; the program does not start with it."""

    code = "configuration"
