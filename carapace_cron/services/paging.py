"""Pages whose cursor is a number: that of the last thing on the page before."""

from __future__ import annotations

from carapace_cron.errors import InvalidValue


def check_page(limit: int, cursor: int | None, *, most: int) -> None:
    """Raises `InvalidValue` for a limit beyond 1–`most`, and for a cursor that no page has given."""
    if not 1 <= limit <= most:
        raise InvalidValue(f"bad limit {limit}: expected 1–{most}", field="limit")
    if cursor is not None and not 0 < cursor < 2**63:
        raise InvalidValue("bad cursor: give the nextCursor of the page before", field="cursor")
