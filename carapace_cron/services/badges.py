"""Public badges: whoever has the address of one sees whether all is well, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from carapace_cron.clock import Clock
from carapace_cron.ledger.badges import BadgeKey, BadgeKeys
from carapace_cron.ledger.monitors import Watched
from carapace_cron.ledger.watchlist import Watchlist
from carapace_cron.model.actor import Actor
from carapace_cron.services.access import require

ALL = "*"  # in place of a tag: all monitors of the user
SIGNATURE_LENGTH = 8

BadgeStatus = Literal["up", "late", "down"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many monitors there are, and how many of them are late and down; `label` says of what."""

    label: str
    total: int
    late: int
    down: int

    def status(self, *, with_late: bool) -> BadgeStatus:
        """The worst of them. What is new or paused is well."""
        if self.down:
            return "down"
        return "late" if self.late and with_late else "up"


@dataclass(frozen=True, slots=True)
class TagBadge:
    """What addresses a badge of a tag."""

    key: str
    signature: str
    tag: str


class BadgeDesk:
    def __init__(self, keys: BadgeKeys, watchlist: Watchlist, clock: Clock) -> None:
        self._keys = keys
        self._watchlist = watchlist
        self._clock = clock

    async def of_user(self, actor: Actor) -> list[TagBadge]:
        """A badge of all, and one of each tag."""
        require(actor, "monitors:read")
        key = await self._keys.of(actor.tenant, actor.user)
        monitors = await self._watchlist.of_user(actor.tenant, actor.user)
        tags = {tag for one in monitors for tag in one.monitor.tags}
        return [TagBadge(key.key, _signature(key, tag), tag) for tag in (ALL, *sorted(tags))]

    async def of_tag(self, badge: TagBadge) -> Tally | None:
        """None for an address that this gateway did not give out."""
        key = await self._keys.find(badge.key)
        if key is None or not hmac.compare_digest(_signature(key, badge.tag), badge.signature):
            return None
        monitors = await self._watchlist.of_user(key.tenant, key.user_id)
        if badge.tag == ALL:
            return self._tally("all", monitors)
        return self._tally(badge.tag, [one for one in monitors if badge.tag in one.monitor.tags])

    async def of_monitor(self, unique_key: str) -> Tally | None:
        """The badge of one monitor. Its id, which lets people ping, is never shown."""
        one = await self._watchlist.by_unique_key(unique_key)
        if one is None:
            return None
        return self._tally(one.monitor.name or one.monitor.slug or "monitor", [one])

    def _tally(self, label: str, monitors: Sequence[Watched]) -> Tally:
        now = self._clock.now()
        shown = [one.shown(now) for one in monitors]
        return Tally(label, len(shown), shown.count("late"), shown.count("down"))


def _signature(key: BadgeKey, tag: str) -> str:
    """So that whoever knows one badge cannot tell the address of another tag's."""
    digest = hmac.digest(key.secret.encode(), f"{key.key} {tag}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode()[:SIGNATURE_LENGTH]
