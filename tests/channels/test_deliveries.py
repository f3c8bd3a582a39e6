"""The outbox in the ledger, on a real SQLite file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.ledger import deliveries as outbox
from carapace_cron.ledger.deliveries import Deliveries, UnreadableNotice, insert_delivery
from carapace_cron.ledger.tables import deliveries as table
from carapace_cron.model.notice import MonitorNotice

MakeNotice = Callable[..., Any]
Enqueue = Callable[..., Any]


async def test_it_gives_back_the_notice_that_was_put_in(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    notice = make_notice(output="42 orders\n\ttotal 99 €", error=None)
    await enqueue(notice)
    first = await deliveries.first_of("ops")
    assert first is not None
    assert first.notice == notice
    assert (first.state, first.tries, first.next_try_at, first.created_at) == (
        "waiting", 0, clock.now(), clock.now(),
    )


async def test_it_ignores_a_notice_that_is_there_already(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue
) -> None:
    await enqueue(make_notice(), make_notice(output="again"))
    await enqueue(make_notice())
    assert (await deliveries.counts()).waiting == 1


async def test_it_keeps_nothing_when_the_transaction_that_ends_the_run_fails(
    deliveries: Deliveries, database: Database, make_notice: MakeNotice, clock: ManualClock
) -> None:
    def end_run(connection: sa.Connection) -> None:
        insert_delivery(connection, make_notice(), clock.now())
        raise LookupError("the run is not there")

    with pytest.raises(LookupError):
        await database.write(end_run)
    assert await deliveries.heads() == []


async def test_it_keeps_texts_cleaned_and_bounded(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue
) -> None:
    await enqueue(make_notice(output="\x1b[31m" + "x" * 100_000, job_name="a\r\nBcc: b", error="no\x00"))
    first = await deliveries.first_of("ops")
    assert first is not None
    assert len(first.notice.output) <= 16_384
    assert "\x1b" not in first.notice.output
    assert (first.notice.job_name, first.notice.error) == ("a Bcc: b", "no")


async def test_it_names_the_oldest_waiting_one_of_each_channel(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    await enqueue(*(make_notice(f"{channel}-{n}", channel) for n in range(3) for channel in ("b", "a", "c")))
    heads = {head.channel_id: head for head in await deliveries.heads()}
    await deliveries.delivered(heads["a"].sequence, clock.now())
    await deliveries.give_up(heads["b"].sequence, clock.now(), "gone")
    later = clock.now() + timedelta(seconds=5)
    await deliveries.retry_later(heads["c"].sequence, later, "busy")

    after = {head.channel_id: head for head in await deliveries.heads()}
    assert sorted(after) == ["a", "b", "c"]
    assert after["a"].sequence == heads["a"].sequence + 3
    assert after["b"].sequence == heads["b"].sequence + 3
    assert (after["c"].sequence, after["c"].tries, after["c"].next_try_at) == (heads["c"].sequence, 1, later)


async def test_it_finds_the_heads_without_reading_the_rows_behind_them(database: Database) -> None:
    compiled = outbox._HEADS.compile(dialect=sa.create_engine("sqlite://").dialect)
    plan = await database.read(lambda c: c.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all())
    steps = [row[3] for row in plan]
    assert sum("USING INDEX deliveries_waiting" in step for step in steps) == 3
    assert [step for step in steps if step.startswith("SCAN") and "waiting_channels" not in step] == []


async def test_each_step_is_taken_once(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    await enqueue(make_notice())
    first = await deliveries.first_of("ops")
    assert first is not None
    assert await deliveries.delivered(first.sequence, clock.now()) is True
    assert await deliveries.delivered(first.sequence, clock.now()) is False
    assert await deliveries.give_up(first.sequence, clock.now(), "late") is False
    assert await deliveries.retry_later(first.sequence, clock.now(), "late") is False
    assert await deliveries.resend(first.sequence, clock.now()) is False
    kept = await deliveries.get(first.sequence)
    assert kept is not None
    assert (kept.state, kept.tries, kept.error, kept.finished_at) == ("delivered", 1, None, clock.now())


async def test_it_lets_an_undeliverable_one_wait_again(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    await enqueue(make_notice())
    first = await deliveries.first_of("ops")
    assert first is not None
    await deliveries.give_up(first.sequence, clock.now(), "answered 410\x07 Gone")
    given_up = await deliveries.get(first.sequence)
    assert given_up is not None
    assert (given_up.state, given_up.error) == ("undeliverable", "answered 410 Gone")

    assert await deliveries.resend(first.sequence, clock.now()) is True
    waiting = await deliveries.first_of("ops")
    assert waiting is not None
    assert (waiting.state, waiting.tries, waiting.finished_at) == ("waiting", 0, None)


async def test_it_counts_by_state(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    await enqueue(*(make_notice(str(n), f"channel-{n}") for n in range(4)))
    heads = await deliveries.heads()
    await deliveries.delivered(heads[0].sequence, clock.now())
    await deliveries.give_up(heads[1].sequence, clock.now(), "gone")
    counts = await deliveries.counts()
    assert (counts.waiting, counts.delivered, counts.undeliverable) == (2, 1, 1)


async def test_it_tells_what_was_said_of_a_run(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue
) -> None:
    await enqueue(*(make_notice(name, run_id=run) for name, run in (("1", "r"), ("2", "other"), ("3", "r"))))
    assert [delivery.notice.id for delivery in await deliveries.of_run("r")] == ["1", "3"]
    assert await deliveries.of_run("unknown") == []
    assert await deliveries.get(999) is None


async def test_it_pages_newest_first(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    await enqueue(*(make_notice(str(n), "even" if n % 2 == 0 else "odd") for n in range(10)))
    newest = await deliveries.page(tenant=None, limit=3)
    assert [delivery.notice.id for delivery in newest] == ["9", "8", "7"]
    following = await deliveries.page(tenant=None, before=newest[-1].sequence, limit=3)
    assert [delivery.notice.id for delivery in following] == ["6", "5", "4"]
    even = await deliveries.page(tenant=None, channel_id="even", state="waiting")
    assert [delivery.notice.id for delivery in even] == ["8", "6", "4", "2", "0"]
    assert await deliveries.page(tenant=None, state="undeliverable") == []


async def test_it_pages_a_tenants_own_only(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue
) -> None:
    owners = (("alice", "acme"), ("bob", "acme"), ("charlie", "rival"))
    await enqueue(*(make_notice(user, user_id=user, tenant=tenant) for user, tenant in owners))
    of_acme = await deliveries.page(tenant="acme")
    assert [delivery.notice.id for delivery in of_acme] == ["bob", "alice"]
    assert [d.notice.id for d in await deliveries.page(tenant="acme", user_id="alice")] == ["alice"]
    assert [d.notice.id for d in await deliveries.page(tenant="rival")] == ["charlie"]


async def test_it_parts_those_of_runs_from_those_of_monitors(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, monitor_notice: MonitorNotice
) -> None:
    await enqueue(make_notice("of a run", run_id="run_0123456789abcdefghijklmnop"), monitor_notice)
    of_runs = await deliveries.page(tenant="acme", of_monitors=False)
    of_monitors = await deliveries.page(tenant="acme", of_runs=False)
    assert [one.notice.id for one in of_runs] == ["of a run"]
    assert [one.notice for one in of_monitors] == [monitor_notice]


async def test_it_names_the_row_that_holds_no_notice(
    deliveries: Deliveries, database: Database, make_notice: MakeNotice, enqueue: Enqueue
) -> None:
    await enqueue(make_notice())
    await database.write(lambda c: c.execute(sa.update(table).values(body=b"{}")).rowcount)
    [head] = await deliveries.heads()
    with pytest.raises(UnreadableNotice) as caught:
        await deliveries.first_of("ops")
    assert caught.value.sequence == head.sequence
