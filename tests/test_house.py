"""The house has floors, and imports go down them: drawn anew from the code each time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "carapace_cron"

# Floor by floor, as docs/house.md tells it. The longest matching name decides where a module is.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "clock", "ids", "failpoints"),
    ("schedule", "outbound"),
    ("model", "settings"),
    (
        "ports", "hookspecs", "engines", "database", "data_dir", "occurrences", "calendars", "metrics",
        "monitors.status", "monitors.alarm", "monitors.sentences",
    ),
    ("objects", "job_index", "job_document", "job_store", "ledger", "runners", "channels"),
    ("scheduler", "executor", "channels.courier", "monitors"),
    ("services",),
    ("api", "gateway"),
    ("plugin", "house", "watch_wing", "cli", "__main__"),
)

# The reference host would host any plugin: it knows only the ground and the words that it shares.
GATEWAY_MAY_USE = {
    "errors",
    "clock",
    "ids",
    "hookspecs",
    "outbound",
    "model.actor",
    "model.record",
    "ports.host",
    "ports.channel",
    "gateway",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """The package's own modules that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            base = node.module.removeprefix(PACKAGE).removeprefix(".")
            for name in node.names:
                inner = f"{base}.{name.name}".lstrip(".")
                yield inner if _is_module(inner) else base
        elif isinstance(node, ast.Import):
            yield from (
                name.name.removeprefix(f"{PACKAGE}.") for name in node.names if name.name.startswith(PACKAGE)
            )


def _is_module(dotted: str) -> bool:
    path = ROOT / PACKAGE / dotted.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


def floor_of(module: str) -> int:
    matches = [
        (len(room), number)
        for number, rooms in enumerate(FLOORS)
        for room in rooms
        if module == room or module.startswith(room + ".")
    ]
    assert matches, f"{module} is on no floor: add it to FLOORS and to docs/house.md"
    return max(matches)[1]


ALL = [(module, path) for module, path in modules() if module]


@pytest.mark.parametrize(("module", "path"), ALL, ids=[module for module, _ in ALL])
def test_imports_go_down_the_floors(module: str, path: Path) -> None:
    upward = [used for used in imports(path) if used and floor_of(used) > floor_of(module)]
    assert not upward, f"{module} (floor {floor_of(module)}) imports upward: {upward}"


def test_nothing_imports_in_a_circle() -> None:
    graph = {module: {used for used in imports(path) if used and used != module} for module, path in ALL}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' → '.join((*trail, module))}"
        if module not in done:
            for used in graph.get(module, ()):
                visit(used, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_reference_gateway_knows_nothing_of_cron() -> None:
    foreign = {
        used
        for module, path in ALL
        if module.split(".")[0] == "gateway"
        for used in imports(path)
        if not any(used == known or used.startswith(known + ".") for known in GATEWAY_MAY_USE)
    }
    assert not foreign


def test_scheduler_and_executor_do_not_know_each_other() -> None:
    known = {module: set(imports(path)) for module, path in ALL}
    assert "executor" not in known["scheduler"]
    assert "scheduler" not in known["executor"]


def test_folders_say_what_they_are_for() -> None:
    """An ``__init__.py`` holds a docstring; ``schedule`` also has the names that others rely on."""
    for module, path in modules():
        if path.name != "__init__.py":
            continue
        body = ast.parse(path.read_text()).body
        assert body and ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
        assert len(body) == 1 or module == "schedule", f"{path} holds code"
