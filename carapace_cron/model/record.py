"""The base of all records: frozen, camelCase on the wire, nothing unknown let in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

from carapace_cron.errors import InvalidValue


class Record(BaseModel):
    """A value that never changes; change is a new record by `evolve`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    def evolve(self, **changes: Any) -> Any:
        """A copy with `changes` (python names). The values are trusted; outside input goes through parse."""
        return self.model_copy(update=changes)

    def wire(self) -> dict[str, Any]:
        """The JSON-ready form: camelCase, instants as ``2026-01-30T12:00:00Z``, None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("expected an instant with a zone, such as 2026-12-01T09:00:00Z")
    return value.astimezone(UTC)


def instant_text(value: datetime) -> str:
    """
    >>> instant_text(datetime(2026, 1, 30, 12, tzinfo=UTC))
    '2026-01-30T12:00:00Z'
    """
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Instant = Annotated[
    datetime, AfterValidator(_in_utc), PlainSerializer(instant_text, return_type=str, when_used="json")
]
"""An aware UTC datetime; on the wire ISO 8601 with Z."""


def explain(error: ValidationError, *, where: str = "") -> InvalidValue:
    """The first fault of a pydantic error as one sentence of ours: field, value and what would do."""
    first = error.errors(include_url=False)[0]
    field = _path(first["loc"], where)
    given = first["input"]
    if first["type"] == "missing":
        return InvalidValue(f"missing required field {field!r}", field=field)
    if first["type"] == "extra_forbidden":
        return InvalidValue(f"unknown field {field!r}", field=field)
    cause = (first.get("ctx") or {}).get("error")
    if isinstance(cause, InvalidValue):
        return InvalidValue(str(cause), field=cause.field or field)
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidValue(f"bad {field} {_shown(given)}: {reason[:1].lower()}{reason[1:]}", field=field)


def _path(loc: Sequence[int | str], where: str) -> str:
    parts = [where] if where else []
    return ".".join([*parts, *(to_camel(str(part)) for part in loc)]) or "data"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]
