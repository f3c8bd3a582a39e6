"""How a badge looks: a picture, JSON, or what shields.io draws from."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Any

from carapace_cron.services.badges import BadgeStatus, Tally

_COLORS: dict[BadgeStatus, str] = {"up": "#4c1", "late": "#fe7d37", "down": "#e05d44"}
_SHIELDS_COLORS: dict[BadgeStatus, str] = {"up": "success", "late": "important", "down": "critical"}
_CHARACTER = 7  # pixels; textLength below makes any text take just so much
_PADDING = 10
_LONGEST_LABEL = 60

_SVG = Template(
    """\
<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="20" role="img" aria-label="$label: $status">\
<title>$label: $status</title>\
<rect width="$width" height="20" rx="3" fill="#555"/>\
<rect x="$left" width="$right" height="20" rx="3" fill="$color"/>\
<rect x="$left" width="4" height="20" fill="$color"/>\
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">\
<text x="5" y="14" textLength="$label_length">$label</text>\
<text x="$status_x" y="14" textLength="$status_length">$status</text>\
</g></svg>
"""
)


def badge_svg(tally: Tally, *, with_late: bool) -> str:
    """A picture of its own, with nothing in it that a reader's browser would fetch or run."""
    status = tally.status(with_late=with_late)
    label = tally.label if len(tally.label) <= _LONGEST_LABEL else f"{tally.label[: _LONGEST_LABEL - 1]}…"
    label_length, status_length = _CHARACTER * len(label), _CHARACTER * len(status)
    left, right = label_length + _PADDING, status_length + _PADDING
    return _SVG.substitute(
        label=escape(label),
        status=status,
        color=_COLORS[status],
        width=left + right,
        left=left,
        right=right,
        status_x=left + _PADDING // 2,
        label_length=label_length,
        status_length=status_length,
    )


def badge_json(tally: Tally, *, with_late: bool) -> dict[str, Any]:
    status = tally.status(with_late=with_late)
    return {"status": status, "total": tally.total, "grace": tally.late, "down": tally.down}


def badge_shields(tally: Tally, *, with_late: bool) -> dict[str, Any]:
    """For https://shields.io/endpoint."""
    status = tally.status(with_late=with_late)
    return {
        "schemaVersion": 1,
        "label": tally.label,
        "message": status,
        "color": _SHIELDS_COLORS[status],
    }
