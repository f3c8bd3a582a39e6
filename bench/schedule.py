"""How long a schedule takes to parse and to answer, beside croniter, cronsim and APScheduler.

    python bench/schedule.py            a table, in microseconds a call, and the ratios of the medians
    python bench/schedule.py --json     the same for machines

"first" is parse and the first next instant, "later" each further one; all in America/New_York, datetimes in
and out, in one process, the engines taking turns so that a busy moment strikes all of them. An engine that
refuses an expression has no figure there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]  # ships no types
from croniter import croniter
from cronsim import CronSim

from carapace_cron.schedule import parse

ZONE = "America/New_York"
CLOCK = ZoneInfo(ZONE)
START = datetime(2026, 1, 5, 10, 17, tzinfo=CLOCK)
ROUNDS = 5
FIRSTS, LATERS = 150, 150

EXPRESSIONS = [
    "* * * * *",
    "*/5 * * * *",
    "*/15 * * * *",
    "0 * * * *",
    "0 */6 * * *",
    "0,30 8-18 * * *",
    "0 9 * * *",
    "30 2 * * *",
    "0 9 * * 1-5",
    "*/10 9-17 * * mon-fri",
    "0 0 * * 0",
    "0 0 1 * *",
    "0 0 1,15 * *",
    "0 0 1,15 * 3",
    "0 0 1 1 *",
    "0 0 29 2 *",
    "0 0 L * *",
    "0 12 * * 1#2",
    "23 0-20/2 * * *",
    "5 4 * 6,9 sun",
    "0 22 * * 1-5",
    "15 14 1 * *",
]

Next = Callable[[], datetime]


def _carapace(text: str) -> Next:
    schedule, at = parse(text, ZONE), START

    def following() -> datetime:
        nonlocal at
        found = schedule.next_after(at)
        assert found is not None
        at = found
        return at

    return following


def _carapace_integers(text: str) -> Next:
    schedule, at = parse(text, ZONE), int(START.timestamp())

    def following() -> datetime:
        nonlocal at
        at = schedule.next_after_timestamp(at) or 0
        return START

    return following


def _croniter(text: str) -> Next:
    iterator = croniter(text, START)
    return lambda: iterator.get_next(datetime)


def _cronsim(text: str) -> Next:
    return CronSim(text, START).__next__


def _apscheduler(text: str) -> Next:
    trigger = CronTrigger.from_crontab(text, CLOCK)
    at: datetime = START

    def following() -> datetime:
        nonlocal at
        at = trigger.get_next_fire_time(at, at)
        return at

    return following


ENGINES: dict[str, Callable[[str], Next]] = {
    "carapace": _carapace,
    "carapace ints": _carapace_integers,
    "croniter": _croniter,
    "cronsim": _cronsim,
    "APScheduler": _apscheduler,
}


def measure(text: str) -> dict[str, tuple[float, float]]:
    """Microseconds for the first and for each later instant: the best of some rounds, by engine."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for name, engine in ENGINES.items():
            try:
                engine(text)()
            except Exception:  # noqa: BLE001  # each engine refuses in its own way; it has no figure then
                continue
            first, later = _first(engine, text), _later(engine(text))
            before = best.get(name, (first, later))
            best[name] = min(first, before[0]), min(later, before[1])
    return best


def _first(engine: Callable[[str], Next], text: str) -> float:
    begin = time.perf_counter()
    for _ in range(FIRSTS):
        engine(text)()
    return (time.perf_counter() - begin) / FIRSTS * 1e6


def _later(following: Next) -> float:
    count = 0
    following()
    begin = time.perf_counter()
    while count < LATERS and following().year < 2090:  # sparse ones reach the end of time sooner
        count += 1
    return (time.perf_counter() - begin) / max(count, 1) * 1e6


def medians_of(figures: dict[str, dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    return {
        name: (
            statistics.median(by[name][0] for by in figures.values() if name in by),
            statistics.median(by[name][1] for by in figures.values() if name in by),
        )
        for name in ENGINES
    }


def show(figures: dict[str, dict[str, tuple[float, float]]]) -> None:
    print(f"{'µs, first / later':24}" + "".join(f"{name:>18}" for name in ENGINES))
    for text, by in figures.items():
        cells = (f"{by[name][0]:.1f} / {by[name][1]:.2f}" if name in by else "—" for name in ENGINES)
        print(f"{text:24}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    figures = {text: measure(text) for text in EXPRESSIONS}
    medians = medians_of(figures)
    first, later = medians["carapace"]
    ratios = {name: {"first": by[0] / first, "later": by[1] / later} for name, by in medians.items()}
    if as_json:
        print(json.dumps({"figures": figures, "medians": medians, "times_as_long": ratios}, indent=1))
        return
    show({**figures, "median": medians})
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['first']:.1f} times as long for the first, {ratio['later']:.1f} for later")


if __name__ == "__main__":
    main()
