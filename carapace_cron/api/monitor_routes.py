"""``/api/v1/monitors``: the methods ``carapace.cron.monitors.*`` for those who would rather speak REST."""

from __future__ import annotations

from carapace_cron.api.rest import RestCall, text, texts, whole

READ, WRITE = "monitors:read", "monitors"

_ALL = "monitors"
_ONE = "monitors/{monitorId}"
_METHODS = "carapace.cron.monitors"

MONITOR_CALLS = (
    RestCall("GET", _ALL, f"{_METHODS}.list", READ,
             reads={"userId": text, "tags": texts, "limit": whole, "cursor": text}),
    RestCall("POST", _ALL, f"{_METHODS}.create", WRITE, reads={"userId": text}, body="data", makes=True),
    RestCall("GET", _ONE, f"{_METHODS}.get", READ),
    RestCall("PATCH", _ONE, f"{_METHODS}.update", WRITE, reads={"ifRevision": whole}, body="updates"),
    RestCall("DELETE", _ONE, f"{_METHODS}.delete", WRITE),
    RestCall("POST", f"{_ONE}/pause", f"{_METHODS}.pause", WRITE),
    RestCall("POST", f"{_ONE}/resume", f"{_METHODS}.resume", WRITE),
    RestCall("POST", f"{_ONE}/acknowledge", f"{_METHODS}.acknowledge", WRITE),
    RestCall("POST", f"{_ONE}/snooze", f"{_METHODS}.snooze", WRITE, members=("until",)),
    RestCall("POST", f"{_ONE}/sign", f"{_METHODS}.sign", WRITE, members=("required",)),
    RestCall("GET", f"{_ONE}/pings", f"{_METHODS}.pings", READ, reads={"limit": whole, "cursor": whole}),
    RestCall("GET", f"{_ONE}/pings/{{n}}/body", f"{_METHODS}.pingBody", READ, reads={"n": whole}),
    RestCall("GET", f"{_ONE}/flips", f"{_METHODS}.flips", READ, reads={"since": text, "until": text}),
)
