"""Objects in a bucket: Amazon S3 and what speaks like it, through aioboto3.

A refused or lost write is looked at before it is believed: the object is read again, and if it has the
bytes of the write (bodies carry a random ``writeId``), the write was done and only its answer was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from carapace_cron.clock import Clock, SystemClock
from carapace_cron.errors import ConfigurationError, Unavailable
from carapace_cron.failpoints import failpoint
from carapace_cron.objects.conditions import judge, require_one
from carapace_cron.objects.s3_probe import Probe, form, probe
from carapace_cron.objects.s3_wire import Address, Page, Refusal, Silence, Wire, connect
from carapace_cron.ports.object_store import Conflict, Listed, Stored, StoredObject, Unknown, WriteOutcome

TRIES = 6
TRIES_SECONDS = 30  # no new try after that; each takes at most its own few seconds
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0

_REFUSED_WRITE = {404, 409, 412}  # the condition did not hold, or it met another write
_HELP = {
    "NoSuchBucket": "create it, or correct JOB_STORE",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AuthorizationHeaderMalformed": "set AWS_DEFAULT_REGION to the bucket's region",
    "PermanentRedirect": "set AWS_DEFAULT_REGION to the bucket's region",
}
_NO_RIGHT = "allow its credentials s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"

log = logging.getLogger(__name__)
T = TypeVar("T")


class S3Objects:
    """Made by `open`; one for a process. Closing it closes its connections."""

    def __init__(self, wire: Wire, clock: Clock, found: Probe) -> None:
        self._wire = wire
        self._clock = clock
        self.found = found
        self.conditional_writes = found.conditional_writes

    @classmethod
    async def open(
        cls, address: str, *, endpoint_url: str | None = None, clock: Clock | None = None
    ) -> S3Objects:
        """Connect to ``s3://bucket/prefix`` and find out what the server honours.

        `clock` times the waits between tries; the network takes its real time, so None, the machine's
        clock, is right but for a test of those waits.

        Raises `ConfigurationError` for a missing bucket or refused credentials, `Unavailable` when there
        is no answer. A missing bucket is created on a loopback endpoint only: that is a server for
        development; elsewhere a new bucket would as likely be a slip of the pen.
        """
        clock = clock or SystemClock()
        wire = await connect(Address.parse(address, endpoint_url))
        try:
            await _retried(clock, lambda: _find_bucket(wire))
            found = await probe(wire, lambda number: _wait(clock, FIRST_WAIT_SECONDS * number))
        except BaseException as error:
            await wire.close()
            if isinstance(error, Silence):
                raise Unavailable(f"{wire.address} cannot be reached: {error}") from error
            if isinstance(error, Refusal):
                raise _misconfigured(wire.address, error) from error
            raise
        _say(wire.address, found)
        return cls(wire, clock, found)

    @failpoint("objects.get")
    async def get(self, key: str) -> StoredObject | None:
        return await self._read(lambda: self._get(key))

    @failpoint("objects.put")
    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        require_one(if_match, if_absent)
        return await self._write(lambda: self._put(key, body, if_match, if_absent))

    @failpoint("objects.delete")
    async def delete(self, key: str, *, if_match: str) -> WriteOutcome:
        return await self._write(lambda: self._delete(key, if_match))

    @failpoint("objects.list")
    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        position = {} if after is None else {"StartAfter": self._wire.address.prefix + after}
        while True:
            lines, token = await self._page(prefix, position)
            for key, etag in lines:
                yield Listed(key, etag)
            if token is None:
                return
            position = {"ContinuationToken": token}

    async def close(self) -> None:
        await self._wire.close()

    async def _page(self, prefix: str, position: dict[str, str]) -> Page:
        return await self._read(lambda: self._wire.page(prefix, **position))

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await _retried(self._clock, ask)
        except Silence as silence:
            raise Unavailable(f"{self._wire.address} cannot be read: {silence}") from silence
        except Refusal as refusal:
            raise _misconfigured(self._wire.address, refusal) from refusal

    async def _write(self, ask: Callable[[], Awaitable[WriteOutcome]]) -> WriteOutcome:
        try:
            return await _retried(self._clock, ask)
        except Silence as silence:
            return Unknown(str(silence))
        except Refusal as refusal:
            raise _misconfigured(self._wire.address, refusal) from refusal

    async def _get(self, key: str) -> StoredObject | None:
        found = await self._wire.get(key)
        return None if found is None else StoredObject(key, *found)

    async def _put(self, key: str, body: bytes, if_match: str | None, if_absent: bool) -> WriteOutcome:
        """One try. Raises `Silence` when another may help."""
        if not self.conditional_writes:
            return await self._put_alone(key, body, if_match, if_absent)
        condition = {"IfNoneMatch": "*"} if if_match is None else {"IfMatch": self._form(if_match)}
        try:
            return Stored(await self._wire.put(key, body, **condition))
        except Silence as silence:
            reason = str(silence)
        except Refusal as refusal:
            if refusal.status not in _REFUSED_WRITE or refusal.code == "NoSuchBucket":
                raise
            reason = str(refusal)
        judged = judge(await self._get(key), body, if_match=if_match, if_absent=if_absent)
        if judged is None:
            raise Silence(f"{reason}, and the object is as it was")
        return judged

    async def _put_alone(self, key: str, body: bytes, if_match: str | None, if_absent: bool) -> WriteOutcome:
        """Look, then write: right only as long as no other process writes, which was said at start."""
        judged = judge(await self._get(key), body, if_match=if_match, if_absent=if_absent)
        return Stored(await self._wire.put(key, body)) if judged is None else judged

    async def _delete(self, key: str, if_match: str) -> WriteOutcome:
        current = await self._get(key)
        if current is None:
            return Stored("")
        if current.etag != if_match:
            return Conflict(current.etag)
        condition = {"IfMatch": self._form(if_match)} if self.found.conditional_delete else {}
        try:
            await self._wire.delete(key, **condition)
        except Refusal as refusal:
            if refusal.status not in _REFUSED_WRITE or refusal.code == "NoSuchBucket":
                raise
            raise Silence(str(refusal)) from refusal  # it changed just now: look again
        return Stored("")

    def _form(self, etag: str) -> str:
        return form(etag, self.found.etag_form)


async def _find_bucket(wire: Wire) -> None:
    try:
        await wire.page("cron/probe/")
    except Refusal as refusal:
        if refusal.code != "NoSuchBucket" or not wire.address.is_loopback:
            raise
        await _create_bucket(wire)


async def _create_bucket(wire: Wire) -> None:
    try:
        await wire.create_bucket()
    except Refusal as refusal:
        if refusal.code != "BucketAlreadyOwnedByYou":  # another gateway starts, too, and was quicker
            raise
    log.info("created the missing %s", wire.address, extra={"action": "bucket_created"})


async def _retried(clock: Clock, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again after `Silence`, with full jitter, a bounded number of times and a bounded time."""

    async def attempt() -> T:  # tenacity awaits nothing but what an `async def` made
        return await ask()

    tries = AsyncRetrying(
        retry=retry_if_exception_type(Silence),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS),
        stop=stop_after_attempt(TRIES) | stop_after_delay(TRIES_SECONDS),
        sleep=lambda seconds: _wait(clock, seconds),
        reraise=True,
    )
    return await tries(attempt)


async def _wait(clock: Clock, seconds: float) -> None:
    await clock.wait(asyncio.Event(), seconds)


def _misconfigured(address: Address, refusal: Refusal) -> ConfigurationError:
    remedy = _HELP.get(refusal.code, _NO_RIGHT)
    return ConfigurationError(f"{address} refuses what is asked ({refusal}): {remedy}")


def _say(address: Address, found: Probe) -> None:
    for finding in found.findings:
        log.warning("%s: %s", address, finding, extra={"action": "store_probe"})
    if not found.conditional_writes:
        message = "%s has no compare-and-swap: this must be the ONLY instance that writes to it"
        log.warning(message, address, extra={"action": "store_single_instance"})
