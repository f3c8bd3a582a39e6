"""The base of all records: frozen, camelCase on the wire, nothing unknown let in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from carapace_cron.errors import InvalidValue

DAY_SECONDS = 86_400


class Record(BaseModel):
    """A value that never changes; change is a new record by `evolve`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    def evolve(self, **changes: Any) -> Self:
        """A copy with `changes` (python names). The values are trusted; outside input goes through parse."""
        return self.model_copy(update=changes)

    def wire(self) -> dict[str, Any]:
        """The JSON-ready form: camelCase, instants as ``2026-01-30T12:00:00Z``, None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("expected an instant with a zone, such as 2026-12-01T09:00:00Z")
    # Schedules end there too; and an offset at either end of the calendar would leave it.
    if not 1970 <= value.year < 2200:
        raise ValueError("expected an instant from 1970 to 2199, such as 2026-12-01T09:00:00Z")
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


def explain(error: ValidationError) -> InvalidValue:
    """The first fault of a pydantic error as one sentence of ours: field, value and what would do."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"])) or "data"
    given = first["input"]
    if first["type"] == "missing":
        return InvalidValue(f"missing required field {field!r}", field=field)
    if first["type"] == "extra_forbidden":
        return InvalidValue(f"unknown field {_cut(field)!r}: leave it out", field=_cut(field))
    cause = (first.get("ctx") or {}).get("error")
    if isinstance(cause, InvalidValue):
        return InvalidValue(str(cause), field=cause.field or field)
    return InvalidValue(f"bad {field} {_shown(given)}: {expectation(first)}", field=field)


def expectation(fault: ErrorDetails) -> str:
    """What would do instead of the value that pydantic refused: ``expected at most 20``."""
    known = _EXPECTED.get(fault["type"])
    if known is not None:
        bounds = {name: _plain(bound) for name, bound in fault.get("ctx", {}).items()}
        return known.format(**bounds).replace("'", '"')
    reason = fault["msg"].removeprefix("Value error, ")
    reason = f"{reason[:1].lower()}{reason[1:]}"
    return f"expected {reason.removeprefix(_LEAD)}" if reason.startswith(_LEAD) else reason


_LEAD = "input should be "
_EXPECTED = {  # pydantic's types of errors, in our words
    "bool_type": "expected true or false",
    "bytes_type": "expected a text",
    "datetime_from_date_parsing": "expected an instant such as 2026-12-01T09:00:00Z",
    "datetime_parsing": "expected an instant such as 2026-12-01T09:00:00Z",
    "datetime_type": "expected an instant such as 2026-12-01T09:00:00Z",
    "dict_type": "expected an object",
    "finite_number": "expected a number",
    "float_type": "expected a number",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "less_than_equal": "expected at most {le}",
    "list_type": "expected a list",
    "literal_error": "expected {expected}",
    "model_type": "expected an object",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected a text that is not empty",
    "string_type": "expected a text",
    "too_short": "expected at least {min_length} of them",
    "too_long": "expected at most {max_length} of them, found {actual_length}",
    "tuple_type": "expected a list",
}


def _plain(bound: Any) -> Any:
    """Whole numbers without a point: 86400, not 86400.0."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def _cut(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"
