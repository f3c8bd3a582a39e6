"""Monitors, their pings and their flips; deliveries that know whose they are, and tell of monitors, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "monitors",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("unique_key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("revision", _WHOLE_NUMBER, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("pings", _WHOLE_NUMBER, nullable=False),
        sa.Column("last_ping_at", sa.BigInteger(), nullable=True),
        sa.Column("last_duration_ms", _WHOLE_NUMBER, nullable=True),
        sa.Column("expected_after", sa.BigInteger(), nullable=True),
        sa.Column("open_runs", sa.JSON(), nullable=True),
        sa.Column("failures_in_row", _WHOLE_NUMBER, nullable=False),
        sa.Column("ends", sa.Text(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("alarm", sa.JSON(), nullable=True),
        sa.Column("look_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("unique_key"),
    )
    op.create_index("monitors_by_user", "monitors", ["tenant", "user_id", "created_at", "id"])
    op.create_index(
        "monitors_by_slug",
        "monitors",
        ["tenant", "user_id", "slug"],
        unique=True,
        sqlite_where=sa.text("slug <> ''"),
        postgresql_where=sa.text("slug <> ''"),
    )
    op.create_index(
        "monitors_to_look_at",
        "monitors",
        ["look_at"],
        sqlite_where=sa.text("look_at IS NOT NULL"),
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_table(
        "dependencies",
        sa.Column("monitor_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("monitor_id", "parent_id"),
    )
    op.create_index("dependencies_by_parent", "dependencies", ["parent_id"])
    op.create_table(
        "pings",
        sa.Column("monitor_id", sa.Text(), nullable=False),
        sa.Column("n", _WHOLE_NUMBER, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rid", sa.Text(), nullable=False),
        sa.Column("exit_status", _WHOLE_NUMBER, nullable=True),
        sa.Column("duration_ms", _WHOLE_NUMBER, nullable=True),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("remote_address", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("monitor_id", "n"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "flips",
        sa.Column("sequence", _WHOLE_NUMBER, nullable=False),
        sa.Column("monitor_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_index("flips_by_monitor", "flips", ["monitor_id", "sequence"])
    op.create_table(
        "badges",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("tenant", "user_id"),
    )
    op.drop_index("deliveries_by_run", "deliveries")
    op.execute("ALTER TABLE deliveries RENAME COLUMN run_id TO subject")
    op.add_column("deliveries", sa.Column("tenant", sa.Text(), nullable=False, server_default=""))
    op.add_column("deliveries", sa.Column("user_id", sa.Text(), nullable=False, server_default=""))
    for column in ("tenant", "user_id"):
        of_run = f"(SELECT runs.{column} FROM runs WHERE runs.id = deliveries.subject)"  # noqa: S608  # our names
        op.execute(f"UPDATE deliveries SET {column} = coalesce({of_run}, '')")  # noqa: S608  # as above
    op.create_index("deliveries_by_subject", "deliveries", ["subject"])
    op.create_index("deliveries_by_tenant", "deliveries", ["tenant", "sequence"])
