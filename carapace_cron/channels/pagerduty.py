"""The kind `pagerduty`: bad news opens an incident by Events API v2, good news of the same thing resolves it.

The key that joins the two is the notice's topic: the job, or the incident of a monitor. So a job that fails
ten times is one incident, and a notice that is sent again after a crash is none of its own.
Source: developer.pagerduty.com, "Events API v2", "Send an alert event", 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator

from carapace_cron.channels.envelope import envelope
from carapace_cron.channels.posting import Answer, HttpDoor, Poster, http_url, judge
from carapace_cron.channels.settings import KindSettings, read_settings
from carapace_cron.clock import Clock
from carapace_cron.hookspecs import ChannelFactory
from carapace_cron.model.notice import AnyNotice
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import bounded
from carapace_cron.model.untrusted import one_line
from carapace_cron.ports.channel import Channel

_WHAT = "PagerDuty"
URL_OF_EVENTS = "https://events.pagerduty.com/v2/enqueue"  # of the US region; the EU's is in the docs
SUMMARY_LIMIT = 1_024  # characters
SAID_LIMIT = 200

Severity = Literal["critical", "error", "warning", "info"]

# What is worth knowing but not worth waking somebody as a failure is.
_MILDER: Mapping[str, Severity] = {
    "monitor.late": "warning",
    "monitor.tooOften": "warning",
}


class PagerDutySettings(KindSettings):
    """``[channels.<id>] kind = "pagerduty"``."""

    routing_key: SecretStr = Field(min_length=32, max_length=32)  # the "integration key" of a service
    severity: Severity = "error"  # of what opens an incident
    url: SecretStr = SecretStr(URL_OF_EVENTS)
    timeout_seconds: float = Field(10, ge=1, le=25)

    _is_http = field_validator("url")(http_url)


class PagerDutyChannel:
    """One service of PagerDuty's."""

    kind = "pagerduty"

    def __init__(self, settings: PagerDutySettings, http: HttpDoor, clock: Clock) -> None:
        self._settings = settings
        self._poster = Poster(_WHAT, settings.url, settings.timeout_seconds, http)
        self._clock = clock

    async def send(self, notice: AnyNotice) -> None:
        told = {
            "routing_key": self._settings.routing_key.get_secret_value(),
            **event(notice, self._settings.severity),
        }
        body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        answer = await self._poster.post(body, {})
        judge(_WHAT, answer, self._clock.now(), said=_said(answer))

    async def close(self) -> None:
        """Nothing is held open: the client is the house's."""


def open_pagerduty(http: HttpDoor, clock: Clock) -> ChannelFactory:
    """The factory of the kind `pagerduty`, for `register_channel_kinds`."""

    def factory(channel_id: str, given: Mapping[str, Any]) -> Channel:
        return PagerDutyChannel(read_settings(PagerDutySettings, channel_id, given), http, clock)

    return factory


def event(notice: AnyNotice, severity: Severity) -> dict[str, Any]:
    """The event without its routing key. Resolving what is not open does nothing."""
    key = f"carapace-cron/{notice.topic}"
    if notice.success:
        return {"event_action": "resolve", "dedup_key": key}
    return {
        "event_action": "trigger",
        "dedup_key": key,
        "client": "carapace-cron",
        "payload": {
            "summary": one_line(f"{notice.title}. {notice.summary}", SUMMARY_LIMIT),
            "source": notice.topic,
            "severity": _MILDER.get(notice.event, severity),
            "timestamp": instant_text(notice.happened_at),
            "class": notice.event,
            "custom_details": envelope(notice),
        },
    }


def _said(answer: Answer) -> str:
    """What is wrong with an event, in PagerDuty's words: ``Event object is invalid``."""
    try:
        said = json.loads(answer.body)["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return one_line(bounded(str(said), SAID_LIMIT))
