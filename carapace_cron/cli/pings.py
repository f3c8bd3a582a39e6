"""Telling a monitor that a command runs and how it ended, without the command waiting for it."""

from __future__ import annotations

import re
import time
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from carapace_cron.cli.url import origin

BODY_LIMIT = 10_000  # bytes; what monitors take that have not told their limit yet
SAID_LIMIT = 300  # bytes of what a monitor answers, for people

_START_SHARE = 1 / 3  # of the time for a report: a start that hangs leaves the rest of it to the end
_END_TRIES = 3
_FIRST_PAUSE_SECONDS = 0.5  # after the first try; twice that after the second
_LATER = frozenset({408, 429})  # of 4xx, those that another try may mend

_COUNT = re.compile(r"[0-9]{1,9}")

_HEADERS = {"Content-Type": "text/plain"}


def ping_url(monitor: str, signal: str, run_id: str) -> str:
    """The monitor's URL with the signal at the end of its path, and the run id beside what else it asks.

    >>> ping_url("https://cron.example.com/ping/key/nightly/?create=1", "start", "0b5c")
    'https://cron.example.com/ping/key/nightly/start?create=1&rid=0b5c'
    """
    parts = urlsplit(monitor)
    query = "&".join(filter(None, (parts.query, urlencode({"rid": run_id}))))
    return parts._replace(path=f"{parts.path.rstrip('/')}/{signal}", query=query).geturl()


class _Ping(NamedTuple):
    signal: str
    body: bytes
    tries: int
    deadline: float  # of time.monotonic()


class _Fault(NamedTuple):
    """Why a try did not tell the monitor."""

    sentence: str
    is_final: bool = False  # another try would hear the same
    retry_after: int = 0  # seconds that the monitor asks for


class Reporter:
    """Sends the pings of one run from a thread of its own, one after the other.

    In this order, because a start that arrives after the end would look like a run that never ends.
    """

    def __init__(self, monitor: str, run_id: str, *, timeout_seconds: float) -> None:
        """`timeout_seconds`: the longest that `ended` takes."""
        self._monitor = monitor
        self._run_id = run_id
        self._timeout_seconds = timeout_seconds
        self._body_limit: int | None = BODY_LIMIT  # None: Healthchecks leaves it out where there is none
        self._faults: dict[str, str] = {}  # signal → why the monitor was not told
        self._pings: SimpleQueue[_Ping | None] = SimpleQueue()
        # A daemon: a look-up of a name can hang for longer than anybody should wait for it.
        self._thread = Thread(target=self._send_all, name="pings", daemon=True)
        self._thread.start()

    def started(self) -> None:
        """Tell that the command runs; comes back at once. It is tried only once: only durations need it."""
        deadline = time.monotonic() + self._timeout_seconds * _START_SHARE
        self._pings.put(_Ping("start", b"", 1, deadline))

    def ended(self, exit_status: int, tail: bytes) -> str | None:
        """Tell how it ended; None, or a sentence about what the monitor was not told, and why."""
        deadline = time.monotonic() + self._timeout_seconds
        self._pings.put(_Ping(str(exit_status), tail, _END_TRIES, deadline))
        self._pings.put(None)
        self._thread.join(self._timeout_seconds)
        if self._thread.is_alive():
            self._faults[str(exit_status)] = f"no answer within {self._timeout_seconds:g} s"
        return self._sentence()

    def _sentence(self) -> str | None:
        last = next(reversed(self._faults.items()), None)
        if last is None:
            return None
        signal, fault = last
        what = "the start" if signal == "start" else f"exit status {signal}"
        return f"the monitor at {origin(self._monitor)} was not told of {what}: {fault}"

    def _send_all(self) -> None:
        while (ping := self._pings.get()) is not None:
            fault = self._send(ping)
            if fault is not None:
                self._faults[ping.signal] = fault

    def _send(self, ping: _Ping) -> str | None:
        """Until it is told or the tries are used up; None, or why it was not told."""
        pause = _FIRST_PAUSE_SECONDS
        for tries_left in range(ping.tries, 1, -1):
            fault = self._try(ping, _left(ping.deadline) / tries_left)
            if fault is None or fault.is_final:
                return fault and fault.sentence
            time.sleep(min(max(pause, fault.retry_after), _left(ping.deadline) / 2))
            pause *= 2
        last = self._try(ping, _left(ping.deadline))
        return last and last.sentence

    def _try(self, ping: _Ping, timeout_seconds: float) -> _Fault | None:
        from carapace_cron.cli.http import Unreachable, post  # slow; the command is at work by now

        url = ping_url(self._monitor, ping.signal, self._run_id)
        body = last_bytes(ping.body, self._body_limit)
        try:
            answer = post(url, body, headers=_HEADERS, timeout_seconds=timeout_seconds)
        except Unreachable as error:
            return _Fault(str(error))
        if answer.status >= 300:
            is_final = answer.status < 500 and answer.status not in _LATER
            retry_after = _number(answer.headers["Retry-After"]) or 0
            return _Fault(f"it answered {answer.status}{_said(answer.body)}", is_final, retry_after)
        self._body_limit = _number(answer.headers["Ping-Body-Limit"])
        return None


def _said(body: bytes) -> str:
    """
    >>> _said(b'bad grace "soon": expected a duration\\n<html>'), _said(b"\\x1b[2J"), _said(b"")
    (': bad grace "soon": expected a duration', ': [2J', '')
    """
    first_line = next(iter(body[:SAID_LIMIT].decode("utf-8", "replace").splitlines()), "")
    printable = "".join(letter for letter in first_line if letter.isprintable()).strip()
    return f": {printable}" if printable else ""


def last_bytes(body: bytes, limit: int | None) -> bytes:
    """The end of it, where how a command failed is told; a monitor would keep the beginning.

    >>> last_bytes(b"abcdef", 2), last_bytes(b"abcdef", 0), last_bytes(b"abcdef", None)
    (b'ef', b'', b'abcdef')
    """
    return body if limit is None else body[max(len(body) - limit, 0) :]


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)  # a timeout must be above 0


def _number(text: str | None) -> int | None:
    """
    >>> _number("10000"), _number("Sat, 21 Nov 2026 09:00:00 GMT"), _number(None), _number("9" * 5000)
    (10000, None, None, None)
    """
    return int(text) if text is not None and _COUNT.fullmatch(text) else None
