"""What a job says of itself at ``POST /webhook/ping/…``, in JSON: the form of Croniq's reports."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carapace_cron.api.ping_body import Body
from carapace_cron.errors import InvalidValue
from carapace_cron.gateway.strict_json import parse_json
from carapace_cron.model.monitor import YEAR_SECONDS, PingKind
from carapace_cron.model.record import explain

REPORT_BYTES = 256 * 1024

_SAID: dict[str, PingKind] = {"success": "success", "failed": "fail", "running": "start"}


class Report(BaseModel):
    """Without a body, it is a success. `message` and `data` are for people, and kept with the body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    status: Literal["success", "failed", "running"] = "success"
    message: str | None = None
    execution_time_ms: float | None = Field(None, ge=0, le=YEAR_SECONDS * 1_000)
    data: Any = None

    @property
    def said(self) -> PingKind:
        return _SAID[self.status]

    @property
    def took_ms(self) -> int | None:
        return None if self.execution_time_ms is None else round(self.execution_time_ms)


def read_report(body: Body) -> Report:
    """Raises `InvalidValue`, with a sentence that says what would do.

    >>> read_report(Body(b'{"status": "failed", "execution_time_ms": 12.4}', 47, True)).said
    'fail'
    >>> read_report(Body(b"", 0, True)).status
    'success'
    """
    if not body.ended or body.size > len(body.kept):
        message = f"the report is cut off or too large: expected at most {REPORT_BYTES} bytes of JSON"
        raise InvalidValue(message)
    if not body.size:
        return Report()
    value = parse_json(body.kept)
    if not isinstance(value, dict):
        raise InvalidValue('bad report: expected a JSON object such as {"status": "success"}, or no body')
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        raise explain(error) from error
