"""Alembic's steps from one schema to the next; `upgrade.py` runs them."""
