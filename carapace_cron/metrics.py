"""What happens, counted in memory: the numbers of ``/metrics``. Every series of ours has its line here.

Each run, ping and write pays for its counts, so one costs less than a microsecond: no locks, no libraries.
Whoever counts does it from one thread, and nothing depends on a count. Labels come from closed sets only:
an id, a name or a tenant in one would tell others of it, and make a new series each time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple, get_args

from carapace_cron.model.monitor import PingKind, Status
from carapace_cron.model.run import OutcomeStatus, Trigger

Labels = tuple[str, ...]

RUN_ENDS = ("success", "degraded", "failure", "timeout", "cancelled", "missed")
TRY_RESULTS = ("delivered", "failed", "undeliverable")
MONITOR_STATUSES: Labels = get_args(Status)

_LATENESS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)  # seconds; the promise is one or two
_DURATIONS = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)  # seconds
_COMMITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)  # seconds; a disk's flush
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # writes


class Count:
    """How often something happened, by labels. `known`: those that are shown before they happened."""

    def __init__(self, name: str, text: str, labels: Labels = (), known: Iterable[Labels] = ((),)) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.values = dict.fromkeys(known, 0)

    def add(self, *labels: str) -> None:
        self.values[labels] = self.values.get(labels, 0) + 1

    def add_many(self, times: int, *labels: str) -> None:
        self.values[labels] = self.values.get(labels, 0) + times


class Buckets:
    """Numbers sorted by the bounds that they do not exceed; the last bucket has what exceeds all."""

    __slots__ = ("counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class Spread:
    """How numbers of one kind are spread: a histogram, by labels."""

    def __init__(
        self,
        name: str,
        text: str,
        bounds: Sequence[float],
        labels: Labels = (),
        known: Iterable[Labels] = ((),),
    ) -> None:
        self.name = name
        self.text = text
        self.bounds = bounds
        self.labels = labels
        self.values = {one: Buckets(bounds) for one in known}

    def observe(self, number: float, *labels: str) -> None:
        buckets = self.values.get(labels)
        if buckets is None:
            buckets = self.values[labels] = Buckets(self.bounds)
        buckets.counts[bisect_left(self.bounds, number)] += 1
        buckets.total += number


class Gauge(NamedTuple):
    """A number that is read when somebody asks."""

    name: str
    text: str
    labels: Labels = ()


class Metrics:
    """The counts of one gateway since its start."""

    def __init__(self) -> None:
        self.due_instants = Count(
            "carapace_cron_due_instants",
            "Due instants that were recorded, by what became of them.",
            ("fate",),
            _each(("run", "skipped", "missed")),
        )
        self.run_lateness = Spread(
            "carapace_cron_run_lateness_seconds",
            "From a run's instant to the start of its first attempt, jitter included.",
            _LATENESS,
            ("trigger",),
            _each(get_args(Trigger)),
        )
        self.attempt_duration = Spread(
            "carapace_cron_attempt_duration_seconds", "How long attempts worked.", _DURATIONS
        )
        self.attempts_ended = Count(
            "carapace_cron_attempts_ended",
            "Attempts whose end was recorded, by outcome.",
            ("outcome",),
            _each(get_args(OutcomeStatus)),
        )
        self.runs_ended = Count(
            "carapace_cron_runs_ended",
            "Runs that ended with an attempt, or at their deadline, by how.",
            ("outcome",),
            _each(RUN_ENDS),
        )
        self.delivery_tries = Count(
            "carapace_cron_delivery_tries",
            "Tries to deliver a notice, by the kind of the channel and the result.",
            ("kind", "result"),
            (),
        )
        self.pings = Count(
            "carapace_cron_pings", "Pings that were recorded, by kind.", ("kind",), _each(get_args(PingKind))
        )
        self.pings_refused = Count(
            "carapace_cron_pings_refused", "Pings that were turned away because too many waited."
        )
        self.object_requests = Count(
            "carapace_cron_object_store_requests",
            "Requests to the store of jobs, by operation and result.",
            ("operation", "result"),
            product(("get", "put", "delete", "list"), ("ok", "failed", "unknown")),
        )
        self.ledger_commit = Spread(
            "carapace_cron_ledger_commit_seconds", "How long a transaction of the ledger took.", _COMMITS
        )
        self.ledger_batch = Spread(
            "carapace_cron_ledger_batch_writes", "Writes that shared one transaction.", _BATCHES
        )

    def expect_channels(self, kinds: Iterable[str]) -> None:
        """Show tries of these kinds before there were any: an alert on the first needs the zero before it."""
        for kind, result in product(kinds, TRY_RESULTS):
            self.delivery_tries.add_many(0, kind, result)

    def committed(self, writes: int, seconds: float) -> None:
        """The ledger's writer has ended a transaction."""
        self.ledger_commit.observe(seconds)
        self.ledger_batch.observe(writes)

    @property
    def counts(self) -> Sequence[Count]:
        return [one for one in vars(self).values() if isinstance(one, Count)]

    @property
    def spreads(self) -> Sequence[Spread]:
        return [one for one in vars(self).values() if isinstance(one, Spread)]


def _each(values: Iterable[str]) -> list[Labels]:
    return [(value,) for value in values]


GAUGES: tuple[Gauge, ...] = (
    Gauge("carapace_cron_build_info", "1, with the versions of the extension and of tzdata.",
          ("version", "tzdata")),
    Gauge("carapace_cron_ready", "Whether all loops live and due instants can be recorded."),
    Gauge("carapace_cron_jobs_scheduled", "Jobs that have a next instant."),
    Gauge("carapace_cron_scheduler_last_pass_age_seconds", "Since all that was due was last recorded."),
    Gauge("carapace_cron_scheduler_behind_seconds", "How far it is behind the earliest instant it knows."),
    Gauge("carapace_cron_slots", "Room for attempts."),
    Gauge("carapace_cron_slots_taken", "Attempts that work in this gateway."),
    Gauge("carapace_cron_queue_runs", "Runs that have not ended; held: by a limit.", ("state",)),
    Gauge("carapace_cron_queue_oldest_due_seconds", "How long the run waits that is to be claimed next."),
    Gauge("carapace_cron_deliveries_waiting", "Notices in the outbox, by the kind of channel.", ("kind",)),
    Gauge("carapace_cron_deliveries_oldest_seconds", "How long the oldest notice in the outbox waits."),
    Gauge("carapace_cron_channels_failing", "Channels whose last try failed, by kind.", ("kind",)),
    Gauge("carapace_cron_monitors", "Monitors in the ledger, by status.", ("status",)),
    Gauge("carapace_cron_watchman_last_look_age_seconds",
          "Since the watchman last saw to all monitors that were due."),
)  # fmt: skip
