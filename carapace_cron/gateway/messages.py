"""The gateway's own channel, ``gateway``: it keeps the last messages on disk and pushes new ones.

One JSON object a line; a message counts once its line is synced. Appending happens in a thread, all that
waits goes into one write. A torn last line (the machine stopped in the middle) was never acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.gateway.audience import may_see
from carapace_cron.gateway.strict_json import InvalidJson, dump_json, parse_json
from carapace_cron.model.actor import Actor
from carapace_cron.model.record import instant_text
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.ports.host import HostMessage

log = logging.getLogger(__name__)

KEEP = 1_000  # messages in all
KEEP_PER_USER = 200
SCOPE_OF_OLD = "jobs:read"  # of messages that the version before kept, which had none
MAX_LINE_BYTES = 512 * 1024  # a longer message is refused

Key = tuple[str, str, str]  # tenant, user, idempotency key
Owner = tuple[str, str]  # tenant, user


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """One message as it was kept. `sequence` grows by one a message and is never used again."""

    sequence: int
    at: str  # ISO 8601 with Z: when it was kept
    tenant: str
    user_id: str
    title: str
    text: str
    data: Mapping[str, Any]
    idempotency_key: str
    scope: str  # what a reader's token must carry

    @property
    def key(self) -> Key:
        return self.tenant, self.user_id, self.idempotency_key

    @property
    def owner(self) -> Owner:
        return self.tenant, self.user_id

    def wire(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence,
            "at": self.at,
            "tenant": self.tenant,
            "userId": self.user_id,
            "title": self.title,
            "text": self.text,
            "data": dict(self.data),
            "idempotencyKey": self.idempotency_key,
        }


class Messages:
    """The kept messages, in memory and in `file`. One process has the file open at a time."""

    def __init__(
        self, file: Path, clock: Clock, *, keep: int = KEEP, keep_per_user: int = KEEP_PER_USER
    ) -> None:
        self._log = _Log(file)
        self._clock = clock
        self._keep = keep
        self._keep_per_user = keep_per_user
        self._kept: dict[int, KeptMessage] = {}  # by sequence, oldest first
        self._keys: set[Key] = set()  # of the kept
        self._counts: Counter[Owner] = Counter()  # of the kept
        self._last_sequence = 0
        self._durable: dict[Key, asyncio.Future[None]] = {}  # those on their way to disk
        self._waiting: list[tuple[KeptMessage, bytes]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read what was kept. Raises `OSError` when the file cannot be read or made."""
        for value in await asyncio.to_thread(self._log.open):
            message = _message_of(value)
            if message is not None:
                self._take(message)

    async def close(self) -> None:
        """Wait for what is being written, then close the file."""
        if self._flusher is not None:
            await self._flusher
        await asyncio.to_thread(self._log.close)

    async def keep(self, message: HostMessage) -> KeptMessage | None:
        """Keep it for good; None when it was there already. Raises `DeliveryFailed`."""
        key = (message.tenant, message.user_id, message.idempotency_key)
        on_its_way = self._durable.get(key)
        if on_its_way is not None:
            await asyncio.shield(on_its_way)
            return None
        if key in self._keys:
            return None
        kept = self._numbered(message, self._clock.now())
        line = _line_of(kept)
        self._waiting.append((kept, line))
        durable = self._durable[key] = asyncio.get_running_loop().create_future()
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="gateway messages")
        await asyncio.shield(durable)
        return kept

    def recent(self, reader: Actor, *, limit: int, after: int | None = None) -> list[KeptMessage]:
        """The newest `limit` of those that the reader may see, newest first.

        With `after` the oldest `limit` of those with a greater sequence, still newest first: who asks with
        the sequence that came first in the last answer skips none.
        """
        in_order = reversed(self._kept.values()) if after is None else iter(self._kept.values())
        found = [
            kept
            for kept in in_order
            if kept.sequence > (after or 0) and may_see(reader, kept.tenant, kept.user_id, kept.scope)
        ][:limit]
        return found if after is None else found[::-1]

    def _numbered(self, message: HostMessage, now: datetime) -> KeptMessage:
        self._last_sequence += 1
        return KeptMessage(
            self._last_sequence, instant_text(now), message.tenant, message.user_id,
            message.title, message.text, message.data, message.idempotency_key, message.scope,
        )

    async def _flush(self) -> None:
        """Write batches until nothing waits; each message's future gets the batch's outcome."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error = await self._write(batch)
            for message, _ in batch:
                durable = self._durable.pop(message.key)
                if error is None:
                    self._take(message)
                    durable.set_result(None)
                else:
                    durable.set_exception(error)
                    durable.exception()  # its asker may be gone; then nobody else reads it
            await self._compact()
        self._flusher = None

    async def _write(self, batch: list[tuple[KeptMessage, bytes]]) -> DeliveryFailed | None:
        try:
            await asyncio.to_thread(self._log.append, [line for _, line in batch])
        except OSError as error:
            log.exception("cannot write %s", self._log.file, extra={"action": "messages_write_failed"})
            return DeliveryFailed(f"the gateway cannot keep messages now: {error.strerror}")
        return None

    async def _compact(self) -> None:
        """Rewrite the file with what is kept, once it has twice as many lines."""
        if self._log.lines <= 2 * self._keep:
            return
        try:
            await asyncio.to_thread(self._log.replace, [_line_of(kept) for kept in self._kept.values()])
        except OSError:  # nothing is lost: the long file stays in use
            log.exception("cannot rewrite %s", self._log.file, extra={"action": "messages_compact_failed"})

    def _take(self, message: KeptMessage) -> None:
        """Into memory; then drop the oldest of a user with too many, and of the fullest user."""
        self._kept[message.sequence] = message
        self._keys.add(message.key)
        self._counts[message.owner] += 1
        self._last_sequence = max(self._last_sequence, message.sequence)
        if self._counts[message.owner] > self._keep_per_user:
            self._drop_oldest_of(message.owner)
        elif len(self._kept) > self._keep:
            self._drop_oldest_of(self._counts.most_common(1)[0][0])

    def _drop_oldest_of(self, owner: Owner) -> None:
        oldest = next(kept for kept in self._kept.values() if kept.owner == owner)
        del self._kept[oldest.sequence]
        self._keys.discard(oldest.key)
        self._counts[owner] -= 1


class _Log:
    """The file. Each write goes to the end of what is known to be good, over any torn rest."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = 0
        self._descriptor = -1
        self._good_bytes = 0

    def open(self) -> list[Any]:
        """All values that parse. A torn end stays until something is written over it: a second gateway that
        was pointed here by mistake must not cut off what the first is just writing."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _sync_folder(self.file.parent)
        text = self.file.read_bytes()
        self._good_bytes = text.rfind(b"\n") + 1
        lines = text[: self._good_bytes].splitlines()
        self.lines = len(lines)
        return [value for value in map(_parsed, lines) if value is not None]

    def append(self, lines: list[bytes]) -> None:
        os.ftruncate(self._descriptor, self._good_bytes)  # a failed write may have left a part
        _write_all(self._descriptor, b"".join(lines), self._good_bytes)
        os.fsync(self._descriptor)
        self._good_bytes += sum(map(len, lines))
        self.lines += len(lines)

    def replace(self, lines: list[bytes]) -> None:
        """The file with these lines alone: written beside it, then put in its place."""
        beside = self.file.with_suffix(".new")
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, b"".join(lines), 0)
            os.fsync(descriptor)
            beside.replace(self.file)
        except OSError:
            os.close(descriptor)
            raise
        _sync_folder(self.file.parent)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._good_bytes = sum(map(len, lines))
        self.lines = len(lines)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def _sync_folder(folder: Path) -> None:
    """Make a new or renamed file's name itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line_of(message: KeptMessage) -> bytes:
    try:
        line = dump_json(message.wire() | {"scope": message.scope}).encode() + b"\n"
    except (TypeError, ValueError) as error:  # NaN, a set, half a surrogate pair
        raise DeliveryFailed(f"a message that is not JSON: {error}", permanent=True) from error
    if len(line) > MAX_LINE_BYTES:
        raise DeliveryFailed(
            f"a message of {len(line)} bytes: expected at most {MAX_LINE_BYTES}", permanent=True
        )
    return line


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line)
    except InvalidJson as error:
        log.warning("a kept message cannot be read: %s", error, extra={"action": "message_unreadable"})
        return None


def _message_of(value: Any) -> KeptMessage | None:
    try:
        return KeptMessage(
            sequence=value["sequence"], at=value["at"], tenant=value["tenant"], user_id=value["userId"],
            title=value["title"], text=value["text"], data=value["data"],
            idempotency_key=value["idempotencyKey"], scope=str(value.get("scope", SCOPE_OF_OLD)),
        )
    except (KeyError, TypeError):
        log.warning("a kept message has another shape", extra={"action": "message_unreadable"})
        return None
