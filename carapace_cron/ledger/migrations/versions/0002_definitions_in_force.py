"""Definitions in force, chains, limits, deadlines, failures in a row, and the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("progress", sa.Column("revision", _WHOLE_NUMBER, nullable=True))
    op.add_column("progress", sa.Column("labels", sa.Text(), nullable=False, server_default=""))
    op.add_column("progress", sa.Column("failures_in_row", _WHOLE_NUMBER, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("labels", sa.Text(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("held_by", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("caused_by", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("deadline_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "runs_deadlines",
        "runs",
        ["deadline_at"],
        sqlite_where=sa.text("status = 'queued' AND deadline_at IS NOT NULL"),
        postgresql_where=sa.text("status = 'queued' AND deadline_at IS NOT NULL"),
    )
    op.create_index(
        "runs_held",
        "runs",
        ["held_by", "lane", "sequence"],
        sqlite_where=sa.text("held_by IS NOT NULL"),
        postgresql_where=sa.text("held_by IS NOT NULL"),
    )
    op.create_table(
        "chains",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("upstream_id", sa.Text(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "upstream_id"),
    )
    op.create_index("chains_by_upstream", "chains", ["upstream_id"])
    op.create_table(
        "events",
        sa.Column("sequence", _WHOLE_NUMBER, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_index("events_by_user", "events", ["tenant", "user_id", "sequence"])
    op.create_index("events_by_tenant", "events", ["tenant", "sequence"])
    op.create_index("events_by_job", "events", ["job_id", "sequence"])
    op.create_index("events_by_time", "events", ["at"])
