"""The channels that a tenant may name: how they are, and whether a message arrives there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from carapace_cron.channels.courier import Trouble
from carapace_cron.clock import Clock
from carapace_cron.errors import QuotaExceeded
from carapace_cron.ids import random_text
from carapace_cron.model.actor import Actor
from carapace_cron.model.notice import AnyNotice, Notice
from carapace_cron.model.record import instant_text
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.services.access import require_one_of

TEST_PAUSE = timedelta(seconds=10)  # between two tests of one channel: its readers are people
TEST_NAME = "Test message"


class ChannelBook(Protocol):
    """What this asks of `carapace_cron.channels.registry.Channels`."""

    def ids_for(self, tenant: str) -> list[str]: ...

    def kind_of(self, channel_id: str) -> str: ...

    def check(self, channel_id: str, tenant: str) -> None: ...


class Messenger(Protocol):
    """What this asks of the courier."""

    @property
    def failing(self) -> Mapping[str, Trouble]: ...

    async def say(self, notice: AnyNotice) -> DeliveryFailed | None: ...


class ChannelDesk:
    """Whoever may have jobs or monitors tell of themselves in a channel may see it, and try it."""

    def __init__(self, channels: ChannelBook, courier: Messenger, clock: Clock) -> None:
        self._channels = channels
        self._courier = courier
        self._clock = clock
        self._tested_at: dict[str, float] = {}  # monotonic

    def list(self, actor: Actor) -> dict[str, Any]:
        """``{items}``: the channels that the tenant may name, sorted by id."""
        require_one_of(actor, "jobs:read", "monitors:read")
        return {"items": [self._view(channel_id) for channel_id in self._channels.ids_for(actor.tenant)]}

    async def test(self, actor: Actor, channel_id: str) -> dict[str, Any]:
        """Send a test message, past whatever waits; the channel, and how that went.

        A channel that does not take it is an answer, no error. Raises `InvalidValue` for a channel that the
        tenant may not name, `QuotaExceeded` when it was tested a moment ago.
        """
        require_one_of(actor, "jobs:write", "monitors")
        self._channels.check(channel_id, actor.tenant)
        self._note_test(channel_id)
        failure = await self._courier.say(self._message(actor, channel_id))
        result = {"delivered": failure is None, "error": None if failure is None else str(failure)}
        final = failure is not None and failure.permanent
        return {**self._view(channel_id), **result, "permanent": final}

    def _view(self, channel_id: str) -> dict[str, Any]:
        trouble = self._courier.failing.get(channel_id)
        known = {"id": channel_id, "kind": self._channels.kind_of(channel_id), "state": _state(trouble)}
        if trouble is None:
            return {**known, "failuresInRow": 0, "failingSince": None, "nextTryAt": None, "lastError": None}
        return {
            **known,
            "failuresInRow": trouble.failures + trouble.failed_tests,
            "failingSince": instant_text(trouble.since),
            "nextTryAt": None if trouble.next_try_at is None else instant_text(trouble.next_try_at),
            "lastError": trouble.error,
        }

    def _note_test(self, channel_id: str) -> None:
        now = self._clock.monotonic()
        tested_at = self._tested_at.get(channel_id)
        if tested_at is not None and now - tested_at < TEST_PAUSE.total_seconds():
            seconds = TEST_PAUSE // timedelta(seconds=1)
            raise QuotaExceeded(
                f'the channel "{channel_id}" was tested a moment ago: test it {seconds} seconds apart',
                field="channelId",
            )
        self._tested_at[channel_id] = now

    def _message(self, actor: Actor, channel_id: str) -> Notice:
        now = self._clock.now()
        return Notice(
            id=f"test_{random_text()}",
            tenant=actor.tenant,
            user_id=actor.user,
            channel_id=channel_id,
            event="channel.test",
            job_id="test",
            job_name=TEST_NAME,
            run_id="test",
            status="success",
            success=True,
            scheduled_for=now,
            finished_at=now,
        )


def _state(trouble: Trouble | None) -> str:
    """resting: it failed so often that it is only probed now and then."""
    if trouble is None:
        return "well"
    return "resting" if trouble.is_resting else "failing"
