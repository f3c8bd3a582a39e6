"""Commands that are a URL: ``https://example.com/report``. One request, judged by its status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from carapace_cron.errors import InvalidValue, Refused, Unavailable, WorkStopped
from carapace_cron.model.job import HttpRequest
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Outcome, bounded
from carapace_cron.model.untrusted import clean
from carapace_cron.outbound.client import Answer, Outbound
from carapace_cron.outbound.headers import check_headers
from carapace_cron.outbound.url import check_url, shown
from carapace_cron.ports.runner import Work
from carapace_cron.runners.upstream import upstream_json

_WITH_BODY = ("POST", "PUT", "PATCH")
_RESERVED = "x-carapace-"  # what the called server may rely on; a job must not claim to be another


class HttpRunner:
    """Calls the URL through the guarded door; any 2xx is a success unless the job names its statuses."""

    kind = "http"
    example = "https://example.com/report"

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def claims(self, command: str) -> bool:
        return command.lower().startswith(("http://", "https://"))

    def check(self, command: str, http: HttpRequest | None) -> None:
        check_url(command, self._outbound.allow)
        headers = {} if http is None else http.headers
        check_headers(headers)
        for name in headers:
            if name.lower().startswith(_RESERVED):
                fault = f'header "{name}" cannot be set: names that begin with X-Carapace- are the gateway\'s'
                raise InvalidValue(fault, field=f"http.headers.{name}")

    async def run(self, work: Work) -> Outcome:
        request = work.http or HttpRequest()
        body = _body(work, request)
        try:
            answer = await self._outbound.request(
                request.method,
                work.command,
                headers=_headers(work, request, body),
                body=body,
                timeout_seconds=work.timeout_seconds,
                # Who expects a redirect wants to see it, not what is behind it.
                follow_redirects=not any(300 <= status < 400 for status in request.expect_status),
            )
        except Refused as error:
            return Outcome("failure", error=str(error), permanent=True)
        except Unavailable as error:
            return Outcome("failure", error=str(error))
        except asyncio.CancelledError as stop:  # the client lets it out once the connection is closed
            raise WorkStopped({"connection": "closed"}) from stop
        return self._judged(work.command, request, answer)

    def _judged(self, command: str, request: HttpRequest, answer: Answer) -> Outcome:
        output, metadata = bounded(clean(answer.text())), _metadata(answer)
        if _expected(answer.status, request.expect_status):
            return Outcome("success", output=output, metadata=metadata)
        asked = f"{request.method} {shown(check_url(command, self._outbound.allow))}"
        wanted = ", ".join(map(str, request.expect_status)) or "2xx"
        error = f"{asked} answered {_status_text(answer.status)}; expected {wanted}"
        return Outcome("failure", output=output, error=error, metadata=metadata)


def _body(work: Work, request: HttpRequest) -> bytes | None:
    """The job's own; without one, where a body may be, what the run that started this one brought."""
    if request.body is not None:
        return request.body.encode()
    return upstream_json(work) if request.method in _WITH_BODY else None


def _headers(work: Work, request: HttpRequest, body: bytes | None) -> dict[str, str]:
    """The job's headers over the defaults, and over both what says which run this is."""
    given = {name.lower() for name in request.headers}
    defaults = {"Idempotency-Key": work.run_id, **_content_type(body)}
    return {
        **{name: value for name, value in defaults.items() if name.lower() not in given},
        **request.headers,
        "X-Carapace-Job-Id": work.job_id,
        "X-Carapace-Run-Id": work.run_id,
        "X-Carapace-Attempt": str(work.attempt),
        "X-Carapace-Scheduled-For": instant_text(work.scheduled_for),
        **({} if work.upstream is None else {"X-Carapace-Caused-By": work.upstream["runId"]}),
    }


def _content_type(body: bytes | None) -> Mapping[str, str]:
    """JSON if the body is JSON, else plain text; nothing without a body."""
    if body is None:
        return {}
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return {"Content-Type": "text/plain; charset=utf-8"}
    return {"Content-Type": "application/json"}


def _expected(status: int, expect_status: tuple[int, ...]) -> bool:
    return status in expect_status if expect_status else 200 <= status < 300


def _status_text(status: int) -> str:
    """
    >>> _status_text(503), _status_text(599)
    ('503 Service Unavailable', '599')
    """
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _metadata(answer: Answer) -> dict[str, Any]:
    metadata: dict[str, Any] = {"httpStatus": answer.status}
    if answer.redirects:
        metadata["url"] = answer.url
    if answer.truncated:
        metadata["truncated"] = True
    return metadata
