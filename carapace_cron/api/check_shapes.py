"""Healthchecks' shapes: its checks, pings and flips beside our monitors, in one place.

Their management API v1, v2 and v3 as their code has it (hc/api/views.py, hc/api/models.py, 2026-08). What is
a check there is a monitor here. docs/reference/pings.md has each difference with its reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carapace_cron.errors import InvalidValue
from carapace_cron.ids import unique_key
from carapace_cron.ledger.monitors import Watched
from carapace_cron.ledger.watch_history import KeptPing
from carapace_cron.model.monitor import LONGEST_SLUG, YEAR_SECONDS, Flip
from carapace_cron.monitors.status import DEFAULT_PERIOD
from carapace_cron.schedule import ScheduleError

DEFAULT_TIMEOUT = int(DEFAULT_PERIOD.total_seconds())

_Unique = Literal["name", "slug", "tags", "timeout", "grace"]
_KEYWORDS = Field(None, max_length=200)
_SECONDS = Field(None, ge=60, le=YEAR_SECONDS)
_NULL = 0.0  # no field takes a fraction: what is null is refused as of a wrong type


class CheckSpec(BaseModel):
    """What a caller wrote of a check. Unknown fields are ignored, null is refused; None: not given."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    name: str | None = Field(None, max_length=100)
    slug: str | None = Field(None, max_length=LONGEST_SLUG, pattern="^[a-z0-9-_]*$")
    tags: str | None = None  # words, parted by blanks
    desc: str | None = None
    timeout: int | None = _SECONDS
    schedule: str | None = None
    tz: str | None = None
    grace: int | None = _SECONDS
    channels: str | None = None  # ids, parted by commas; "*": all, "": none
    manual_resume: bool | None = None
    methods: Literal["", "POST"] | None = None
    start_kw: str | None = _KEYWORDS
    success_kw: str | None = _KEYWORDS
    failure_kw: str | None = _KEYWORDS
    filter_http_body: bool | None = None
    filter_default_fail: bool | None = None
    unique: list[_Unique] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: _NULL if value is None else value for name, value in given.items()}

    def lookup(self) -> list[str]:
        """Our names of the fields by which a check is found that is there already; empty: one is made."""
        names = self.unique or []
        return [] if any(getattr(self, name) is None for name in names) else [_OURS[name] for name in names]


def read_spec(given: Mapping[str, Any]) -> CheckSpec:
    """Raises `InvalidValue` in Healthchecks' words.

    >>> read_spec({"timeout": 3})
    Traceback (most recent call last):
    ...
    carapace_cron.errors.InvalidValue: json validation error: timeout is too small
    """
    try:
        return CheckSpec.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name, *inner = first["loc"]
        subject = f"an item in '{name}'" if inner and isinstance(inner[0], int) else str(name)
        fault = _FAULTS.get(first["type"], "has unexpected value")
        raise InvalidValue(f"json validation error: {subject} {fault}") from error


def monitor_fields(spec: CheckSpec, version: int) -> dict[str, Any]:
    """The fields of a monitor that a spec gives, by their names on our wire; but for `channels`.

    >>> monitor_fields(CheckSpec(name="Nightly Backup", timeout=60, tags="a b"), 1)
    {'name': 'Nightly Backup', 'tags': ['a', 'b'], 'periodSeconds': 60, 'slug': 'nightly-backup'}
    """
    given = {name: getattr(spec, name) for name in _OURS if getattr(spec, name) is not None}
    if given.get("schedule"):
        given.pop("timeout", None)
    elif "schedule" in given:
        del given["schedule"]
    fields = {_OURS[name]: value for name, value in given.items()}
    if "tags" in fields:
        fields["tags"] = fields["tags"].split()
    if spec.methods is not None:
        fields["postOnly"] = spec.methods == "POST"
    if spec.name is not None and spec.slug is None and version < 3:
        fields["slug"] = slug_of(spec.name)
    return fields


def told_as(error: InvalidValue) -> str:
    """A refusal of ours in Healthchecks' words, and then in ours, which say what would do."""
    theirs = _REFUSED.get((error.field or "").partition(".")[0])
    if isinstance(error, ScheduleError) and error.field != "timezone":  # it names the part of a schedule
        theirs = _REFUSED["schedule"]
    return str(error) if theirs is None else f"json validation error: {theirs}: {error}"


def slug_of(name: str) -> str:
    """As Django's slugify makes it.

    >>> slug_of("  Café: nightly_backup -- 2 ")
    'cafe-nightly_backup-2'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain))
    return words.strip("-_")[:LONGEST_SLUG]


def check_view(
    one: Watched, now: datetime, *, root: str, version: int = 3, read_only: bool = False
) -> dict[str, Any]:
    """A check on the wire. `root`: where this gateway is reached: ``https://cron.example``."""
    monitor, health = one.monitor, one.health
    view: dict[str, Any] = {
        "name": monitor.name,
        "slug": monitor.slug,
        "tags": " ".join(monitor.tags),
        "desc": monitor.description,
        "grace": int(monitor.grace_seconds),
        "n_pings": health.pings,
        "status": status_of(one, now, with_started=version == 1),
        "started": health.started,
        "last_ping": _seconds(health.last_ping_at),
        "next_ping": _seconds(one.expected_at),
        "manual_resume": monitor.manual_resume,
        "methods": "POST" if monitor.post_only else "",
        "subject": "",
        "subject_fail": "",
        "start_kw": monitor.start_keywords,
        "success_kw": monitor.success_keywords,
        "failure_kw": monitor.failure_keywords,
        "filter_subject": False,
        "filter_body": False,
        "filter_http_body": monitor.filter_body,
        "filter_default_fail": monitor.fail_by_default,
        "badge_url": f"{root}/b/2/{unique_key(monitor.id)}.svg",
    }
    if health.last_duration_ms is not None:
        view["last_duration"] = health.last_duration_ms // 1_000
    if read_only:
        view["unique_key"] = unique_key(monitor.id)
    else:
        view |= _addresses(monitor.id, f"{root}/api/v{version}/checks/{monitor.id}", root)
        view["channels"] = ",".join(monitor.channels)
    if monitor.schedule is None:
        view["timeout"] = int(monitor.period_seconds or DEFAULT_TIMEOUT)
    else:
        view |= {"schedule": monitor.schedule, "tz": monitor.timezone}
    return view


def status_of(one: Watched, now: datetime, *, with_started: bool = False) -> str:
    """What Healthchecks calls it: late is ``grace`` there, and v1 has ``started``."""
    if with_started and one.health.started:
        return "started"
    shown = one.shown(now)
    return "grace" if shown == "late" else shown


def ping_view(ping: KeptPing, monitor_id: str, *, root: str, version: int) -> dict[str, Any]:
    body_url = f"{root}/api/v{version}/checks/{monitor_id}/pings/{ping.n}/body"
    view = {
        "type": ping.kind,
        "date": ping.at.isoformat(),
        "n": ping.n,
        "scheme": ping.scheme,
        "remote_addr": ping.remote_address,
        "method": ping.method,
        "ua": ping.user_agent,
        "rid": ping.rid or None,
        "body_url": body_url if ping.body_bytes else None,
    }
    return view if ping.duration_ms is None else {**view, "duration": round(ping.duration_ms / 1_000, 2)}


def flip_view(flip: Flip) -> dict[str, Any]:
    return {"timestamp": _seconds(flip.at), "up": int(flip.after == "up")}


def _addresses(monitor_id: str, own: str, root: str) -> dict[str, str]:
    return {
        "uuid": monitor_id,
        "ping_url": f"{root}/ping/{monitor_id}",
        "update_url": own,
        "pause_url": f"{own}/pause",
        "resume_url": f"{own}/resume",
    }


def _seconds(instant: datetime | None) -> str | None:
    """``2026-11-21T01:43:12+00:00``: whole seconds, with the offset written out."""
    return None if instant is None else instant.replace(microsecond=0).isoformat()


_OURS = {  # their name → ours on the wire
    "name": "name",
    "slug": "slug",
    "tags": "tags",
    "desc": "description",
    "timeout": "periodSeconds",
    "schedule": "schedule",
    "tz": "timezone",
    "grace": "graceSeconds",
    "manual_resume": "manualResume",
    "start_kw": "startKeywords",
    "success_kw": "successKeywords",
    "failure_kw": "failureKeywords",
    "filter_http_body": "filterBody",
    "filter_default_fail": "failByDefault",
}
_FAULTS = {  # pydantic's types of errors, in their words
    "string_too_long": "is too long",
    "string_type": "is not a string",
    "string_pattern_mismatch": "does not match pattern",
    "less_than_equal": "is too large",
    "greater_than_equal": "is too small",
    "int_type": "is not a number",
    "int_from_float": "is not a number",
    "bool_type": "is not a boolean",
    "list_type": "is not an array",
}
_REFUSED = {  # our name of a field → what they say of it
    "schedule": "schedule is not a valid cron or OnCalendar expression",
    "timezone": "tz is not a valid timezone",
    "tags": "tags has unexpected value",
    "description": "desc is too long",
    "name": "name has unexpected value",
}
