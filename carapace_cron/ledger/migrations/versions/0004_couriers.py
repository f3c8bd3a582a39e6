"""Which courier has a delivery in hand, where several gateways share an outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("courier", sa.Text(), nullable=True))
