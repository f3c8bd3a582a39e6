"""The schema, once, for SQLite and PostgreSQL. A change here comes with a migration beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class InstantColumn(sa.TypeDecorator[datetime]):
    """An aware UTC datetime, kept as whole microseconds since 1970: exact, sortable, the same everywhere."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return None if value is None else from_micros(value)


def to_micros(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


# 64 bits everywhere; SQLite's INTEGER has them, and alone can count the rows of a table.
WholeNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Sorted byte by byte, as S3 lists its keys, whatever the language of the database.
ObjectKey = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

objects = sa.Table(  # the embedded object store: what a bucket holds on S3
    "objects",
    metadata,
    sa.Column("key", ObjectKey, primary_key=True),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("modified_at", InstantColumn, nullable=False),
)

facts = sa.Table(  # single values of this ledger, such as its own id
    "facts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

definitions = sa.Table(  # a job as it is in force, and as it was when a run of it came due
    "definitions",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("revision", WholeNumber, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)

progress = sa.Table(  # how far each job has come; outlives the rows that retention removes from `runs`
    "progress",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("revision", WholeNumber),  # of the definition in force; None: a version before kept none
    # "channel:ops tag:db watched": what limits may count its runs by, and whether a monitor watches them
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("accounted_until", InstantColumn, nullable=False),  # each instant up to it has its record
    sa.Column("runs_created", WholeNumber, nullable=False),  # by the schedule; what maxRuns counts
    sa.Column("execution_count", WholeNumber, nullable=False),  # ended runs, however they ended
    sa.Column("failure_count", WholeNumber, nullable=False),
    sa.Column("failures_in_row", WholeNumber, nullable=False),  # since a success, a resume or another limit
    sa.Column("last_status", sa.Text),
    sa.Column("last_executed_at", InstantColumn),
    sa.Column("last_error", sa.Text),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("sequence", WholeNumber, primary_key=True),  # the order in which they were recorded
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),  # "<tenant>/<user>": the queue that it stands in
    sa.Column("revision", WholeNumber, nullable=False),
    sa.Column("scheduled_for", InstantColumn, nullable=False),
    sa.Column("available_at", InstantColumn),  # None while it waits for the run before it
    sa.Column("not_before", InstantColumn),  # of one that waits so: its own time, if that is still to come
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("serial", sa.Boolean, nullable=False),  # False: overlap allow, it is in nobody's way
    sa.Column("reason", sa.Text),
    sa.Column("labels", sa.Text, nullable=False),  # of the job, as it came due
    sa.Column("held_by", sa.Text),  # the label whose limit is full; it waits until one of those runs ends
    sa.Column("caused_by", sa.Text),  # the run whose end started this one
    sa.Column("deadline_at", InstantColumn),
    sa.Column("attempt", WholeNumber, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until", InstantColumn),
    sa.Column("cancel_reason", sa.Text),  # somebody asked to cancel while it ran
    sa.Column("started_at", InstantColumn),
    sa.Column("finished_at", InstantColumn),
    # The promise "one run per due instant". A manual run's instant has a fraction of a second, which no
    # schedule has, so it never takes the place of a scheduled one.
    sa.UniqueConstraint("job_id", "scheduled_for"),
    sa.Index("runs_by_user", "tenant", "user_id", "scheduled_for"),
    sa.Index("runs_by_tenant", "tenant", "scheduled_for"),
    sa.Index("runs_by_definition", "job_id", "revision"),
    sa.Index(
        "runs_claimable",
        "lane",
        "available_at",
        sqlite_where=sa.text("status = 'queued'"),
        postgresql_where=sa.text("status = 'queued'"),
    ),
    sa.Index(
        "runs_running",
        "lane",
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    ),
    sa.Index(
        "runs_deadlines",
        "deadline_at",
        sqlite_where=sa.text("status = 'queued' AND deadline_at IS NOT NULL"),
        postgresql_where=sa.text("status = 'queued' AND deadline_at IS NOT NULL"),
    ),
    sa.Index(
        "runs_held",
        "held_by",
        "lane",
        "sequence",
        sqlite_where=sa.text("held_by IS NOT NULL"),
        postgresql_where=sa.text("held_by IS NOT NULL"),
    ),
    sa.Index(
        "runs_alive",
        "job_id",
        "sequence",
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    ),
)

# Literals, not bound values: only then does the database see that its partial indexes fit.
QUEUED = runs.c.status == sa.literal_column("'queued'")
RUNNING = runs.c.status == sa.literal_column("'running'")
ALIVE = runs.c.status.in_([sa.literal_column("'queued'"), sa.literal_column("'running'")])

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("number", WholeNumber, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("started_at", InstantColumn, nullable=False),
    sa.Column("finished_at", InstantColumn),
    sa.Column("duration_ms", WholeNumber),
    sa.Column("output", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("metadata", sa.JSON),
)

deliveries = sa.Table(  # the outbox: written with what it tells of
    "deliveries",
    metadata,
    sa.Column("sequence", WholeNumber, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("channel_id", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),  # the id of the run, the unique key of the monitor
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("tries", WholeNumber, nullable=False),
    sa.Column("courier", sa.Text),  # the one that took it last, where there are several; None: it is free
    sa.Column("next_try_at", InstantColumn, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("created_at", InstantColumn, nullable=False),
    sa.Column("finished_at", InstantColumn),
    sa.Index(
        "deliveries_waiting",
        "channel_id",
        "sequence",
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    ),
    sa.Index("deliveries_by_subject", "subject"),
    sa.Index("deliveries_by_tenant", "tenant", "sequence"),
)

chains = sa.Table(  # whose end starts a run of whom; of jobs that are in force and enabled
    "chains",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("upstream_id", sa.Text, primary_key=True),
    sa.Column("condition", sa.Text, nullable=False),
    sa.Index("chains_by_upstream", "upstream_id"),
)

events = sa.Table(  # who changed what, from what, to what
    "events",
    metadata,
    sa.Column("sequence", WholeNumber, primary_key=True),
    sa.Column("at", InstantColumn, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),  # whose thing it is
    sa.Column("actor", sa.Text, nullable=False),  # who did it
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),  # the id of the job, run, token or delivery
    sa.Column("job_id", sa.Text),  # None where it is about no job
    sa.Column("before", sa.JSON),
    sa.Column("after", sa.JSON),
    sa.Index("events_by_user", "tenant", "user_id", "sequence"),
    sa.Index("events_by_tenant", "tenant", "sequence"),
    sa.Index("events_by_job", "job_id", "sequence"),
    sa.Index("events_by_time", "at"),
)

monitors = sa.Table(  # what is watched; its definition, and what pings and the clock made of it
    "monitors",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("slug", sa.Text, nullable=False),
    sa.Column("unique_key", sa.Text, nullable=False, unique=True),  # made of the id, for those who only read
    sa.Column("job_id", sa.Text),  # our own job that it watches
    sa.Column("revision", WholeNumber, nullable=False),
    sa.Column("created_at", InstantColumn, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("pings", WholeNumber, nullable=False),
    sa.Column("last_ping_at", InstantColumn),
    sa.Column("last_duration_ms", WholeNumber),
    sa.Column("expected_after", InstantColumn),
    # of those that have begun: [[rid, started, last sign, overdue], …]
    sa.Column("open_runs", sa.JSON(none_as_null=True)),
    sa.Column("failures_in_row", WholeNumber, nullable=False),
    sa.Column("ends", sa.Text, nullable=False),
    sa.Column("deadline", InstantColumn),  # silence until then makes it down
    sa.Column("alarm", sa.JSON(none_as_null=True)),  # what was told of it, and what is to be told when
    sa.Column("look_at", InstantColumn),  # nothing happens by itself before then; None: nothing will
    sa.Index("monitors_by_user", "tenant", "user_id", "created_at", "id"),
    sa.Index(
        "monitors_by_slug",
        "tenant",
        "user_id",
        "slug",
        unique=True,
        sqlite_where=sa.text("slug <> ''"),
        postgresql_where=sa.text("slug <> ''"),
    ),
    sa.Index(
        "monitors_to_look_at",
        "look_at",
        sqlite_where=sa.text("look_at IS NOT NULL"),
        postgresql_where=sa.text("look_at IS NOT NULL"),
    ),
)

dependencies = sa.Table(  # while the parent is down, nobody is told of the monitor
    "dependencies",
    metadata,
    sa.Column("monitor_id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text, primary_key=True),
    sa.Index("dependencies_by_parent", "parent_id"),
)

pings = sa.Table(
    "pings",
    metadata,
    sa.Column("monitor_id", sa.Text, primary_key=True),
    sa.Column("n", WholeNumber, primary_key=True),  # counted per monitor, from 1
    sa.Column("at", InstantColumn, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("rid", sa.Text, nullable=False),
    sa.Column("exit_status", WholeNumber),
    sa.Column("duration_ms", WholeNumber),
    sa.Column("scheme", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("remote_address", sa.Text, nullable=False),
    sa.Column("user_agent", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary),
    sqlite_with_rowid=False,
)

flips = sa.Table(
    "flips",
    metadata,
    sa.Column("sequence", WholeNumber, primary_key=True),
    sa.Column("monitor_id", sa.Text, nullable=False),
    sa.Column("at", InstantColumn, nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("flips_by_monitor", "monitor_id", "sequence"),
)

badges = sa.Table(  # whose monitors a public badge of tags tells of
    "badges",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),  # random; in the address of the badge
    sa.Column("secret", sa.Text, nullable=False),  # signs the tag beside it
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.UniqueConstraint("tenant", "user_id"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),  # SHA-256; the token itself is kept nowhere
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),  # separated by blanks
    sa.Column("created_at", InstantColumn, nullable=False),
    sa.Column("revoked_at", InstantColumn),
)
