"""A gateway is taken for gone when its leases stay as they are, whatever the clocks on the wall say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from carapace_cron.ledger.leases import LeaseWatch

UNTIL = datetime(2026, 11, 21, 9, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def looked(watch: LeaseWatch[datetime], at: float, **held: datetime) -> list[str]:
    return watch.run_out(held, asked_at=at, answered_at=at)


def test_a_lease_that_stays_as_it_is_has_run_out_after_its_time() -> None:
    watch = LeaseWatch(75)
    assert looked(watch, 1000, run=UNTIL) == []
    assert looked(watch, 1075, run=UNTIL) == []
    assert looked(watch, 1075.1, run=UNTIL) == ["run"]


def test_a_lease_that_is_renewed_holds_even_if_it_ends_earlier_than_before() -> None:
    """As after a clock that was set back."""
    watch = LeaseWatch(75)
    looked(watch, 0, run=UNTIL)
    looked(watch, 70, run=UNTIL - 3600 * SECOND)
    assert looked(watch, 140, run=UNTIL - 3600 * SECOND) == []


def test_a_lease_that_seems_to_have_ended_long_ago_is_given_its_time() -> None:
    """As after a clock that was set forward, or when the watch begins."""
    assert looked(LeaseWatch(75), 0, run=UNTIL - 86_400 * SECOND) == []


def test_a_watcher_that_slept_believes_what_it_sees_when_it_wakes() -> None:
    watch = LeaseWatch(75)
    looked(watch, 0, run=UNTIL, other=UNTIL)
    assert looked(watch, 500, run=UNTIL + 485 * SECOND, other=UNTIL) == ["other"]


def test_an_answer_that_was_slow_counts_from_its_coming() -> None:
    watch = LeaseWatch(75)
    watch.run_out({"run": UNTIL}, asked_at=0, answered_at=60)
    assert looked(watch, 100, run=UNTIL) == []
    assert looked(watch, 136, run=UNTIL) == ["run"]
