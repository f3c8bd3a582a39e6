"""The ``hc_…`` series of Healthchecks in Prometheus' text form, for dashboards that were made for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from carapace_cron.ids import unique_key
from carapace_cron.ledger.monitors import Watched


def check_series(monitors: Sequence[Watched], now: datetime) -> Iterator[str]:
    """Lines that end with a line feed. `monitors`: those that the reader may see; their names, tags and
    unique keys are labels, as there."""
    shown = [(one, _labels(one), one.shown(now)) for one in monitors]
    for name, help_text, is_so in _GAUGES:
        yield from _head(name, f"Whether the check is currently {help_text} (1 for yes, 0 for no).")
        for one, labels, status in shown:
            yield f"{name}{labels} {int(is_so(one, status))}\n"
    down = [one for one, _, status in shown if status == "down"]
    down_tags = {tag for one in down for tag in one.monitor.tags}
    yield from _head("hc_tag_up", "Whether all checks with this tag are up (1 for yes, 0 for no).")
    for tag in sorted({tag for one in monitors for tag in one.monitor.tags}):
        yield f'hc_tag_up{{tag="{_escaped(tag)}"}} {int(tag not in down_tags)}\n'
    yield from _head("hc_checks_total", "The total number of checks.")
    yield f"hc_checks_total {len(monitors)}\n"
    yield from _head("hc_checks_down_total", "The number of checks currently down.")
    yield f"hc_checks_down_total {len(down)}\n"


_GAUGES: tuple[tuple[str, str, Callable[[Watched, str], bool]], ...] = (
    ("hc_check_up", "up", lambda one, status: status != "down"),
    ("hc_check_started", "started", lambda one, status: one.health.started),
    ("hc_check_grace", "in the grace period", lambda one, status: status == "late"),
    ("hc_check_paused", "paused", lambda one, status: status == "paused"),
)


def _head(name: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}\n"
    yield f"# TYPE {name} gauge\n"


def _labels(one: Watched) -> str:
    monitor = one.monitor
    name, tags = _escaped(monitor.name), _escaped(" ".join(monitor.tags))
    return f'{{name="{name}", tags="{tags}", unique_key="{unique_key(monitor.id)}"}}'


def _escaped(text: str) -> str:
    """
    >>> print(_escaped('a "b" \\\\ c'))
    a \\"b\\" \\\\ c
    """
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
