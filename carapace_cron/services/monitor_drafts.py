"""From what a caller wrote to the definition of a monitor: JSON of a call, or the query of a first ping."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from carapace_cron.errors import InvalidValue
from carapace_cron.model.monitor import Monitor, MonitorPolicy
from carapace_cron.model.record import expectation, explain
from carapace_cron.schedule import ScheduleError
from carapace_cron.schedule.errors import shown
from carapace_cron.schedule.every import duration_seconds

_DEFINITION = MonitorPolicy.model_fields
_WIRE_NAMES = {str(field.alias) for field in _DEFINITION.values()}


def draft(data: Any) -> MonitorPolicy:
    """The definition that a caller's JSON describes; raises `InvalidValue` for the first field that is off.

    Strict, as JSON has types of its own. A field that is null is one that was not given.
    """
    given = {name: value for name, value in _known(data).items() if value is not None}
    try:
        return _validated(given)
    except ValidationError as error:
        raise explain(error) from error


def patched(monitor: Monitor, updates: Any) -> dict[str, Any]:
    """The definition with `updates` merged in, ready to be checked as a draft.

    A period takes the place of a schedule, and the other way round: a monitor has one of them.
    """
    given = dict(_known(updates))
    document = _document(monitor)
    document.pop("snoozedUntil", None)
    for one, other in (("schedule", "periodSeconds"), ("periodSeconds", "schedule")):
        if given.get(one) is not None and other not in given:
            document.pop(other, None)
    return document | given


def definition(policy: MonitorPolicy) -> dict[str, Any]:
    """The fields of a definition as values and not as JSON."""
    return {name: getattr(policy, name) for name in _DEFINITION}


def changed(before: Monitor | None, after: Monitor | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields in which two definitions differ: as they were, and as they are. A side that is None has
    none; what is as by default is left out there."""
    old, new = _document(before), _document(after)
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return (
        {name: old[name] for name in names if name in old},
        {name: new[name] for name in names if name in new},
    )


def same_in(names: Sequence[str], policy: MonitorPolicy) -> Callable[[Monitor], bool]:
    """Whether a monitor has the values of `policy` in the fields of these names."""
    fields = [_field_of(name) for name in names]
    return lambda monitor: monitor.job_id is None and all(
        getattr(monitor, field) == getattr(policy, field) for field in fields
    )


def asked_on_ping(slug: str, asked: Mapping[str, str]) -> MonitorPolicy:
    """What the query of a first ping asks for; names that mean nothing here are left alone.

    >>> policy = asked_on_ping("backup", {"schedule": "0 3 * * *", "tz": "Europe/Berlin", "grace": "30m"})
    >>> policy.name, policy.schedule, policy.timezone, policy.grace_seconds
    ('backup', '0 3 * * *', 'Europe/Berlin', 1800.0)

    Raises `InvalidValue` that names the parameter, with what was typed.
    """
    if "period" in asked and "schedule" in asked:
        message = f'bad period "{shown(asked["period"])}": expected a period or a schedule, not both'
        raise InvalidValue(message, field="period")
    given: dict[str, Any] = {"name": slug, "slug": slug}
    for name, text in asked.items():
        if name in _ON_PING:
            field, read = _ON_PING[name]
            given[field] = read(name, text)
    try:
        return _validated(given)
    except ValidationError as error:
        raise _as_typed(error, slug, asked) from error


def _as_typed(error: ValidationError, slug: str, asked: Mapping[str, str]) -> InvalidValue:
    """The first fault of fields that were read from a query, told of the parameter and its text.

    What no parameter says comes from the slug: the name, unless there is one.
    """
    fault = error.errors(include_url=False)[0]
    of_field = {field: name for name, (field, _) in _ON_PING.items()}
    name = of_field.get(str(fault["loc"][0]), "slug")
    if name not in asked:
        return InvalidValue(f'bad slug "{shown(slug)}": {expectation(fault)}', field="slug")
    unit = " seconds" if _ON_PING[name][1] in (_seconds, _reminder) else ""
    return InvalidValue(f'bad {name} "{shown(asked[name])}": {expectation(fault)}{unit}', field=name)


def _validated(given: Mapping[str, Any]) -> MonitorPolicy:
    """`given`: JSON by the names on the wire. Raises pydantic's `ValidationError`."""
    return MonitorPolicy.model_validate_json(json.dumps(given), strict=True, by_alias=True, by_name=False)


def _known(data: Any) -> Mapping[str, Any]:
    """`data`, if all its names are fields of a monitor that a caller may set."""
    if not isinstance(data, Mapping):
        raise InvalidValue("bad data: expected an object with the fields of a monitor", field="data")
    for name in data:
        if name not in _WIRE_NAMES:
            raise _unknown(str(name))
    return data


def _unknown(name: str) -> InvalidValue:
    given = shown(name)
    if name in {str(field.alias) for field in Monitor.model_fields.values()}:
        return InvalidValue(f'field "{given}" cannot be set: leave it out', field=given)
    near = difflib.get_close_matches(given, _WIRE_NAMES, n=1, cutoff=0.5)  # grace → graceSeconds
    expected = f'did you mean "{near[0]}"?' if near else f"expected {', '.join(sorted(_WIRE_NAMES))}"
    return InvalidValue(f'unknown field "{given}": {expected}', field=given)


def _document(monitor: Monitor | None) -> dict[str, Any]:
    if monitor is None:
        return {}
    said = {*_DEFINITION, "snoozed_until"}
    return monitor.model_dump(mode="json", by_alias=True, include=said, exclude_defaults=True)


def _field_of(name: str) -> str:
    for field, one in _DEFINITION.items():
        if one.alias == name:
            return field
    expected = ", ".join(sorted(_WIRE_NAMES))
    raise InvalidValue(f'bad unique "{shown(name)}": expected names of {expected}', field="unique")


def _text(_name: str, text: str) -> str:
    return text


def _words(_name: str, text: str) -> list[str]:
    return text.replace(",", " ").split()


def _seconds(name: str, text: str) -> float:
    """``90``, ``90s``, ``1h30m``."""
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text)
    try:
        return float(duration_seconds(text, text))
    except ScheduleError as error:
        message = f'bad {name} "{shown(text)}": expected seconds, or a duration such as 90s, 15m, 1h30m or 2d'
        raise InvalidValue(message, field=name) from error


def _number(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 12:
        return int(text)
    raise InvalidValue(f'bad {name} "{shown(text)}": expected a whole number', field=name)


def _reminder(name: str, text: str) -> list[dict[str, Any]]:
    return [{"everySeconds": _seconds(name, text)}]


_ON_PING: dict[str, tuple[str, Callable[[str, str], Any]]] = {  # query parameter → field, and how it is read
    "name": ("name", _text),
    "tags": ("tags", _words),
    "desc": ("description", _text),
    "period": ("periodSeconds", _seconds),
    "schedule": ("schedule", _text),
    "tz": ("timezone", _text),
    "grace": ("graceSeconds", _seconds),
    "max_run": ("maxRunSeconds", _seconds),
    "heartbeat": ("heartbeatSeconds", _seconds),
    "channels": ("channels", _words),
    "notify": ("notify", _words),
    "remind": ("reminders", _reminder),
    "failures": ("failuresBeforeAlert", _number),
    "min_interval": ("minIntervalSeconds", _seconds),
}
