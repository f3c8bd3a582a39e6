"""Runs that wait for the one before them keep the time at which they may start at the earliest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("runs", sa.Column("not_before", sa.BigInteger(), nullable=True))
