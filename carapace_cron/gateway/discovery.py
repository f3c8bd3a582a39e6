"""Where plugins are found, and how the object behind a manifest's `entry` is imported.

Folders first, then installed packages; the first with an id wins. Nothing is imported before its turn.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.manifest import FILE_NAME, Manifest

GROUP = "carapace.plugins"

EntryPoints = Callable[[], Iterable[EntryPoint]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a plugin may be. `name` is the folder's or the entry point's, until its id is known."""

    name: str
    source: str  # for people: "folder /…" or "package …"
    manifest_file: Path
    import_folder: Path | None  # what goes to the front of sys.path; None: it is installed


def installed_plugins() -> Iterable[EntryPoint]:
    """The entry points of the group ``carapace.plugins`` in this environment."""
    return entry_points(group=GROUP)


def candidates(plugins_dir: Path | None, installed: EntryPoints) -> Iterator[Candidate]:
    """All places in the order in which they win; each kind by name."""
    if plugins_dir is not None and plugins_dir.is_dir():
        for file in sorted(plugins_dir.glob(f"*/{FILE_NAME}")):
            folder = file.parent.resolve()
            yield Candidate(folder.name, f"folder {folder}", folder / FILE_NAME, folder)
    for point in sorted(installed(), key=lambda point: (point.name, point.value)):
        yield Candidate(point.name, f"package {point.value}", _beside_package(point.value), None)


def import_entry(manifest: Manifest, candidate: Candidate) -> object:
    """The plugin object: what `entry` names, called when it is a class.

    Raises `ConfigurationError` for a name that is not there or is taken, and whatever the plugin's own
    code raises on import.
    """
    module_name, _, path = manifest.entry.partition(":")
    if candidate.import_folder is None:
        module = importlib.import_module(module_name)
    else:
        with _front_of_path(candidate.import_folder, module_name):
            module = importlib.import_module(module_name)
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(
                f'plugin {manifest.id}: no "{name}" in {module_name}\n  where: entry = "{manifest.entry}"\n'
                f"  file: {candidate.manifest_file}\n  what would do: the name of a plugin object or class"
            )
        found = getattr(found, name)
    return found() if isinstance(found, type) else found


@contextmanager
def _front_of_path(folder: Path, module_name: str) -> Iterator[None]:
    """`folder` first on sys.path, refused when a module of it would hide, or be hidden by, another."""
    _refuse_clashes(folder, module_name.partition(".")[0])
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        for name in set(sys.modules) - before:  # half a plugin must not be found by the next one
            if _is_inside(name, folder):
                del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(folder))


def _refuse_clashes(folder: Path, entry_package: str) -> None:
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    names = packages | {path.stem for path in folder.glob("*.py")}
    for name in sorted(names | {entry_package}):
        hides_standard = name in names and name in sys.stdlib_module_names
        is_loaded = name in sys.modules and not _is_inside(name, folder)
        if hides_standard or is_loaded:
            raise ConfigurationError(
                f'module "{name}" of the plugin clashes with another of that name\n  where: {folder}\n'
                f"  file: {_file_of(name)}\n  what would do: a package named after the plugin"
            )


def _is_inside(module_name: str, folder: Path) -> bool:
    file = getattr(sys.modules[module_name], "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(folder)


def _file_of(module_name: str) -> str:
    return str(getattr(sys.modules.get(module_name), "__file__", None) or "the standard library")


def _beside_package(package: str) -> Path:
    """Where an installed package's manifest would be; a file that is not there when the package is not."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(folders[0] if folders else package.replace(".", "/")) / FILE_NAME
