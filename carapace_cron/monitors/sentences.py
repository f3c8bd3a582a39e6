"""What is said of a monitor, in words: why it is down, how late it is, that it is well."""

from __future__ import annotations

from datetime import timedelta

from carapace_cron.ids import unique_key
from carapace_cron.model.monitor import Monitor
from carapace_cron.model.record import instant_text
from carapace_cron.monitors.alarm import Case, Saying
from carapace_cron.monitors.status import After
from carapace_cron.schedule.every import in_words


def name_of(monitor: Monitor) -> str:
    return monitor.name or monitor.slug or unique_key(monitor.id)


def sentence(case: Case, saying: Saying, after: After | None, exit_status: int | None) -> str:
    """One or two sentences for people. `after`: what just became of the monitor; None: time passed."""
    match saying.event:
        case "up":
            return f"It is well again, after {duration_text(saying.at - saying.since)}."
        case "late":
            return f"No {_signal(case)} came yet. It was due at {instant_text(saying.at)}."
        case "reminder":
            return f"It is still down, since {instant_text(saying.since)}.{_how_many(case)}"
        case "tooOften":
            least = duration_text(timedelta(seconds=case.monitor.min_interval_seconds or 0))
            return f"It ended less than {least} after the time before."
        case _:
            return f"{_fault(case, saying, after, exit_status)}{_how_many(case)}"


def duration_text(duration: timedelta) -> str:
    """
    >>> duration_text(timedelta(hours=1, minutes=30)), duration_text(timedelta(milliseconds=300))
    ('1 hour 30 minutes', 'less than a second')
    """
    seconds = int(duration.total_seconds())
    return in_words(seconds, one="1 ") if seconds > 0 else "less than a second"


def _fault(case: Case, saying: Saying, after: After | None, exit_status: int | None) -> str:
    at = instant_text(saying.at)
    match None if after is None else after.failure:
        case "fail":
            status = "" if exit_status is None else f", with exit status {exit_status}"
            if case.monitor.job_id is not None:
                return "A run of it failed."
            return f"A ping said that it failed{status}."
        case "timeout":
            due = case.health.expected_after
            was_due = "" if due is None else f" It was due at {instant_text(due)}."
            return f"No {_signal(case)} came in time.{was_due} Its grace was over at {at}."
        case "run":
            return f"A run that had begun did not end by {at}."
        case None:
            return f"It is down since {at}."


def _signal(case: Case) -> str:
    return "ping" if case.monitor.job_id is None else "run"


def _how_many(case: Case) -> str:
    rate = case.monitor.failure_rate
    if rate is not None:
        ends = case.health.ends[-rate.of :]
        return f" {ends.count('f')} of the last {len(ends)} failed."
    failures = case.health.failures_in_row
    return f" {failures} failures in a row." if failures > 1 else ""
