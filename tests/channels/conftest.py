"""The cast and the props: an open ledger, a clock that stands still, a host that keeps what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.ledger.deliveries import Deliveries, insert_delivery
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.actor import Actor
from carapace_cron.model.notice import MonitorNotice, Notice
from carapace_cron.ports.host import AgentCall, AgentReply, HostMessage

START = datetime(2026, 11, 21, 9, tzinfo=UTC)


class MakeNotice(Protocol):
    def __call__(self, notice_id: str = ..., channel_id: str = ..., **fields: Any) -> Notice: ...


@pytest.fixture
def make_notice() -> MakeNotice:
    """A notice of Alice's daily report; each field can be said otherwise."""

    def make(notice_id: str = "notice-1", channel_id: str = "ops", **fields: Any) -> Notice:
        given: dict[str, Any] = {
            "tenant": "acme",
            "user_id": "alice",
            "job_id": "job_1764547200000_0123456789abcdefghij",
            "job_name": "Daily report",
            "run_id": f"run-of-{notice_id}",
            "status": "success",
            "success": True,
            "scheduled_for": START,
            "finished_at": START,
            "attempt": 1,
            "duration_ms": 1234,
            "output": "42 orders",
        }
        return Notice(id=notice_id, channel_id=channel_id, **(given | fields))

    return make


@pytest.fixture
def monitor_notice() -> MonitorNotice:
    """Alice's backup did not ping."""
    return MonitorNotice(
        id="incident-1.down.ops",
        tenant="acme",
        user_id="alice",
        channel_id="ops",
        event="monitor.down",
        monitor_id="7e3f0000-0000-4000-8000-0000000000aa",
        monitor_name="Backup",
        incident_id="incident-1",
        status="down",
        success=False,
        at=START,
        since=START,
        expected_at=START,
        failures_in_row=1,
        tags=("prod",),
        reason="No ping came in time.",
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(sqlite_engine(tmp_path / "ledger.db"), upgrade)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def deliveries(database: Database) -> Deliveries:
    return Deliveries(database)


@pytest.fixture
def enqueue(database: Database, clock: ManualClock) -> Callable[..., Any]:
    """Put notices into the outbox in one transaction, as the end of their runs would."""

    async def put(*notices: Notice) -> None:
        now = clock.now()

        def insert_all(connection: Any) -> None:
            for notice in notices:
                insert_delivery(connection, notice, now)

        await database.write(insert_all)

    return put


class RecordingHost:
    """A host with a channel `gateway` that keeps the messages posted to it."""

    def __init__(self, channels: Collection[str] = ("gateway",)) -> None:
        self.data_dir = Path()
        self.messages: list[HostMessage] = []
        self._channels = channels

    def agents(self) -> Collection[str]:
        return ()

    async def run_agent(self, call: AgentCall) -> AgentReply:
        return AgentReply(output=call.agent)

    def channels(self) -> Collection[str]:
        return self._channels

    async def post(self, message: HostMessage) -> None:
        self.messages.append(message)

    async def identify(self, token: str) -> Actor | None:
        return None

    def emit(self, event: str, payload: Mapping[str, Any], *, tenant: str, user_id: str) -> None:
        """Nobody watches here."""


@pytest.fixture
def host() -> RecordingHost:
    return RecordingHost()
