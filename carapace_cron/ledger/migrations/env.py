"""Alembic's entry: migrate on the connection that `upgrade.py` hands over."""

from __future__ import annotations

from alembic import context

from carapace_cron.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
