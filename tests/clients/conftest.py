"""A gateway as its users have it, and the programs that others wrote, against which it is held."""

from __future__ import annotations

collect_ignore_glob = ["programs/*"]  # they are run by another interpreter
