"""From what a caller wrote to the definition of a job: JSON of a call, or of a patch to what there is."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_snake

from carapace_cron.errors import InvalidValue
from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.model.job import Job, JobDraft, JobPolicy
from carapace_cron.model.record import Instant, explain
from carapace_cron.schedule.errors import shown

MAX_REASON = 500

_DEFINITION = JobDraft.model_fields
_REQUIRED = [str(field.alias) for field in _DEFINITION.values() if field.is_required()]
_WIRE_NAMES = {str(field.alias) for field in _DEFINITION.values()} | {"cronExpression"}
_INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


def draft(data: Any) -> JobDraft:
    """The draft that a caller's JSON describes; raises `InvalidValue` for the first field that is off.

    Strict, as JSON has types of its own: "300" is not a number, and true is not 1. A field that is null
    is one that was not given.
    """
    if not isinstance(data, Mapping):
        expected = "an object with name, schedule, command and channelId"
        raise InvalidValue(f"bad data: expected {expected}", field="data")
    given = _merged({}, _known(data))
    if missing := [name for name in _REQUIRED if name not in given]:
        fields = "field" if len(missing) == 1 else "fields"
        raise InvalidValue(f"missing required {fields} {', '.join(missing)}", field=missing[0])
    try:
        return JobDraft.model_validate_json(json.dumps(given), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise explain(error) from error


def patched(job: Job, updates: Mapping[str, Any]) -> dict[str, Any]:
    """The job's definition with `updates` merged in, ready to be checked as a draft."""
    if updates.get("idempotencyKey", job.idempotency_key) != job.idempotency_key:
        message = "bad idempotencyKey: it belongs to the call that made the job; leave it out"
        raise InvalidValue(message, field="idempotencyKey")
    document = job.model_dump(mode="json", by_alias=True, include=set(_DEFINITION), exclude_none=True)
    return _merged(document, _known(updates))


def definition(policy: JobPolicy) -> dict[str, Any]:
    """The fields of a draft, or of a job, as values and not as JSON."""
    return {name: getattr(policy, name) for name in _DEFINITION}


def calendar_policy(given: Mapping[str, Any]) -> CalendarPolicy:
    """Strict, as `draft` is."""
    try:
        text = json.dumps(_merged({}, given))
        return CalendarPolicy.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise explain(error) from error


def line(text: Any, field: str) -> str | None:
    """A short printable line from a caller, or None."""
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MAX_REASON or not text.isprintable():
        expected = f"one printable line of at most {MAX_REASON} characters"
        raise InvalidValue(f"bad {field}: expected {expected}", field=field)
    return text.strip() or None


def instant(text: str | None, field: str) -> datetime | None:
    """An instant from a caller: ISO 8601 with its zone; None when none was given."""
    if text is None:
        return None
    try:
        return _INSTANT.validate_python(text)
    except ValidationError as error:
        message = f'bad {field} "{shown(text)}": expected an instant such as 2026-12-01T09:00:00Z'
        raise InvalidValue(message, field=field) from error


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the schedule under its own name, and a monitor that is switched on as one with all its
    defaults. Raises `InvalidValue` for a name that no job has."""
    for name in data:
        if name not in _WIRE_NAMES:
            raise _unknown(name)
    known = {name: value for name, value in data.items() if name != "cronExpression"}
    if "cronExpression" in data:
        expression = data["cronExpression"]
        if known.setdefault("schedule", expression) != expression and expression is not None:
            message = "schedule and cronExpression are two names of one field and differ: give one of them"
            raise InvalidValue(message, field="cronExpression")
    if isinstance(switch := known.get("monitor"), bool):
        known["monitor"] = {} if switch else None
    return known


def _unknown(name: str) -> InvalidValue:
    given = shown(name)
    if to_snake(given) in Job.model_fields and to_snake(given) not in _DEFINITION:
        return InvalidValue(f'field "{given}" cannot be set: leave it out', field=given)
    near = difflib.get_close_matches(given, _WIRE_NAMES, n=1)
    expected = f'did you mean "{near[0]}"?' if near else f"expected {', '.join(sorted(_WIRE_NAMES))}"
    return InvalidValue(f'unknown field "{given}": {expected}', field=given)


def _merged(target: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Merge Patch, RFC 7396.

    >>> _merged({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            inner = merged.get(name)
            merged[name] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[name] = value
    return merged
