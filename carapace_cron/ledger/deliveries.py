"""The outbox: notices that wait for their channel, in order per channel, and the record of how it went.

A notice is written by `insert_delivery` in the transaction of what it tells of (the end of a run, misses,
the incident of a monitor), so there is no moment at which it could get lost. The courier does the rest, one
write a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.database import Database
from carapace_cron.errors import CarapaceError
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger.events import Event, insert_events
from carapace_cron.ledger.statements import insert_for
from carapace_cron.ledger.tables import deliveries
from carapace_cron.model.notice import NOTICES, AnyNotice, Delivery, DeliveryState, Notice
from carapace_cron.model.run import ERROR_LIMIT, bounded
from carapace_cron.model.untrusted import clean, presentable

# Literals, not parameters: a planner uses the index of the waiting ones only where it sees the word.
_WAITING = deliveries.c.state == sa.literal_column("'waiting'")
_UNDELIVERABLE = deliveries.c.state == sa.literal_column("'undeliverable'")
_ONE_MORE = deliveries.c.tries + 1
_OF_RUNS = deliveries.c.subject.startswith("run_", autoescape=True)


@dataclass(frozen=True, slots=True)
class Head:
    """The oldest waiting delivery of a channel: the next to be sent there, when, and who took it."""

    channel_id: str
    sequence: int
    tries: int
    next_try_at: datetime
    courier: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    waiting: int
    delivered: int
    undeliverable: int


class UnreadableNotice(CarapaceError):
    """A stored notice that is none (another version wrote it, or a hand did). `sequence` names the row."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"the stored notice {sequence} cannot be read by this version")
        self.sequence = sequence


def insert_delivery(connection: sa.Connection, notice: AnyNotice, now: datetime) -> None:
    """Put `notice` last in its channel's row, to be sent at once. A repeat (same id) changes nothing."""
    kept = presentable(notice)
    statement = insert_for(connection, deliveries).values(
        id=kept.id,
        channel_id=kept.channel_id,
        tenant=kept.tenant,
        user_id=kept.user_id,
        subject=kept.run_id if isinstance(kept, Notice) else kept.monitor_id,
        body=kept.model_dump_json(by_alias=True, exclude_none=True).encode(),
        state="waiting",
        tries=0,
        next_try_at=now,
        created_at=now,
    )
    connection.execute(statement.on_conflict_do_nothing(index_elements=["id"]))


def forget_deliveries(connection: sa.Connection, subject: str, before: datetime) -> None:
    """Remove what was delivered, or could not be, of a run or monitor before then."""
    old = sa.delete(deliveries).where(deliveries.c.subject == subject, deliveries.c.finished_at < before)
    connection.execute(old)


class Deliveries:
    """Reads and steps of the outbox. Each step is conditional on the state it leaves, and answers whether
    it was taken: False means that the delivery was no longer in that state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(self) -> list[Head]:
        """The oldest waiting delivery of every channel that has one. Costs by channels, not by rows."""
        rows = await self._database.read(lambda c: c.execute(_HEADS).all())
        return [
            Head(row.channel_id, row.sequence, row.tries, row.next_try_at, row.courier) for row in rows
        ]

    @failpoint("outbox.first_of")
    async def first_of(self, channel_id: str) -> Delivery | None:
        """The delivery that is next in `channel_id`; None when nothing waits. Raises `UnreadableNotice`."""
        query = (
            sa.select(deliveries)
            .where(_WAITING, deliveries.c.channel_id == channel_id)
            .order_by(deliveries.c.sequence)
            .limit(1)
        )
        row = await self._database.read(lambda c: c.execute(query).one_or_none())
        return None if row is None else _delivery(row)

    @failpoint("outbox.take")
    async def take(self, delivery: Delivery, courier: str) -> bool:
        """Write down that `courier` sends it now. False: somebody did something with it since it was read."""
        as_read = sa.and_(
            _WAITING,
            deliveries.c.tries == delivery.tries,
            deliveries.c.courier.is_not_distinct_from(delivery.courier),
        )
        return await self._step(delivery.sequence, as_read, courier=courier)

    async def get(self, sequence: int) -> Delivery | None:
        query = sa.select(deliveries).where(deliveries.c.sequence == sequence)
        row = await self._database.read(lambda c: c.execute(query).one_or_none())
        return None if row is None else _delivery(row)

    @failpoint("outbox.delivered")
    async def delivered(self, sequence: int, at: datetime) -> bool:
        """The channel has taken it."""
        return await self._step(
            sequence, _WAITING, state="delivered", tries=_ONE_MORE, error=None, finished_at=at
        )

    @failpoint("outbox.retry_later")
    async def retry_later(self, sequence: int, next_try_at: datetime, error: str) -> bool:
        """It failed this time; it stays first in its channel's row until `next_try_at`."""
        return await self._step(
            sequence,
            _WAITING,
            tries=_ONE_MORE,
            next_try_at=next_try_at,
            courier=None,
            error=_sentence(error),
        )

    @failpoint("outbox.give_up")
    async def give_up(self, sequence: int, at: datetime, error: str) -> bool:
        """It is undeliverable, as `error` says; the next in its channel's row may go."""
        return await self._step(
            sequence,
            _WAITING,
            state="undeliverable",
            tries=_ONE_MORE,
            error=_sentence(error),
            finished_at=at,
        )

    @failpoint("outbox.resend")
    async def resend(self, sequence: int, now: datetime, event: Event | None = None) -> bool:
        """Let an undeliverable one wait again, in its old place, as if it were written `now`: it is tried
        as long as a new one. False when it is not undeliverable; else `event` is written with it."""
        return await self._step(
            sequence,
            _UNDELIVERABLE,
            event,
            state="waiting",
            tries=0,
            next_try_at=now,
            courier=None,
            created_at=now,
            finished_at=None,
        )

    async def of_run(self, run_id: str) -> list[Delivery]:
        """What was said about one run, oldest first."""
        query = sa.select(deliveries).where(deliveries.c.subject == run_id).order_by(deliveries.c.sequence)
        return await self._all(query)

    async def page(
        self,
        *,
        tenant: str | None,
        user_id: str | None = None,
        state: DeliveryState | None = None,
        channel_id: str | None = None,
        of_runs: bool = True,
        of_monitors: bool = True,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        """At most `limit` deliveries, newest first; those with a sequence under `before`.

        `tenant` and `user_id`: whose; None: everybody's, which is the operator's to see.
        """
        query = sa.select(deliveries).order_by(deliveries.c.sequence.desc()).limit(limit)
        wanted = (
            (deliveries.c.tenant, tenant),
            (deliveries.c.user_id, user_id),
            (deliveries.c.state, state),
            (deliveries.c.channel_id, channel_id),
        )
        for column, value in wanted:
            if value is not None:
                query = query.where(column == value)
        if of_runs != of_monitors:
            query = query.where(_OF_RUNS if of_runs else ~_OF_RUNS)
        if before is not None:
            query = query.where(deliveries.c.sequence < before)
        return await self._all(query)

    async def counts(self) -> DeliveryCounts:
        query = sa.select(deliveries.c.state, sa.func.count()).group_by(deliveries.c.state)
        rows = await self._database.read(lambda c: c.execute(query).all())
        found = {state: count for state, count in rows}
        return DeliveryCounts(
            found.get("waiting", 0), found.get("delivered", 0), found.get("undeliverable", 0)
        )

    async def _all(self, query: sa.Select[Any]) -> list[Delivery]:
        rows = await self._database.read(lambda c: c.execute(query).all())
        return [_delivery(row) for row in rows]

    async def _step(
        self, sequence: int, leaves: sa.ColumnElement[bool], event: Event | None = None, **values: Any
    ) -> bool:
        statement = sa.update(deliveries).where(deliveries.c.sequence == sequence, leaves).values(**values)

        def step(connection: sa.Connection) -> bool:
            is_done = connection.execute(statement).rowcount == 1
            insert_events(connection, [event] if is_done and event is not None else [])
            return is_done

        return await self._database.write(step)


def _heads() -> sa.Select[Any]:
    """A loose index scan: each step jumps to the next channel id, and a row of a hundred thousand waiting
    for one dead channel is one step like any other."""
    first = sa.select(sa.func.min(deliveries.c.channel_id).label("channel_id")).where(_WAITING)
    waiting = first.cte("waiting_channels", recursive=True)
    following = (
        sa.select(sa.func.min(deliveries.c.channel_id))
        .where(_WAITING, deliveries.c.channel_id > waiting.c.channel_id)
        .scalar_subquery()
    )
    channels = waiting.union_all(sa.select(following).where(waiting.c.channel_id.is_not(None)))
    oldest = (
        sa.select(sa.func.min(deliveries.c.sequence))
        .where(_WAITING, deliveries.c.channel_id == channels.c.channel_id)
        .scalar_subquery()
    )
    head = deliveries.alias("head")
    return sa.select(
        head.c.channel_id, head.c.sequence, head.c.tries, head.c.next_try_at, head.c.courier
    ).select_from(channels.join(head, head.c.sequence == oldest))


_HEADS = _heads()


def _delivery(row: sa.Row[Any]) -> Delivery:
    try:
        notice = NOTICES.validate_json(row.body)
    except ValidationError as error:
        raise UnreadableNotice(row.sequence) from error
    return Delivery(
        sequence=row.sequence,
        notice=notice,
        state=row.state,
        tries=row.tries,
        next_try_at=row.next_try_at,
        courier=row.courier,
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _sentence(error: str) -> str:
    return bounded(clean(error), ERROR_LIMIT)
