"""Pings a second and how long each waits, every one durable before it is answered: SQLite and PostgreSQL.

    python bench/pings.py                          # both stores, about three minutes
    python bench/pings.py sqlite --seconds 60      # one of them, for longer
    python bench/pings.py sqlite --peer http://127.0.0.1:8000/ping ids.txt   # and another server, in turn

A gateway of its own, as `carapace-cron serve` starts it; wrk (from Debian) in one thread with 64 connections,
each of which asks as soon as it is answered, for 200 monitors in turn. "POST" has a body of 410 bytes.
"CPU µs" is of the gateway alone, all threads, a ping; PostgreSQL's own processes are not in it. Afterwards
the monitors are asked how many pings they have: fewer than were answered with 200 end the bench.

The peer is any server that answers ``<root>/<id>``, with one id a line in the file; give the ids of its
processes with `--peer-pids`, and its CPU is shown, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.postgresql import postgresql_server

MONITORS = 200
CONNECTIONS = 64
WARM_UP_SECONDS = 2
TOKEN = "the-token-of-the-bench"
BODY = "x" * 410
READY_SECONDS = 30
COLUMNS = ("what", "who", "seconds", "pings", "pings/s", "CPU µs", "p50 ms", "p99 ms", "max ms", "not 200")

# wrk's own language. `done` runs in the main state, so it prints what the threads cannot share.
SCRIPT = """
local paths, at = {%(paths)s}, 0
local body = "%(body)s"
local method = body == "" and "GET" or "POST"
request = function()
  at = at %% #paths + 1
  return wrk.format(method, paths[at], nil, body ~= "" and body or nil)
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"answered": %%d, "micros": %%d, "p50": %%d, "p99": %%d, "max": %%d, "bad": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    name: str
    paths: Sequence[str]
    body: str = ""


@dataclass(frozen=True)
class Measured:
    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bad: int
    cpu_seconds: float | None  # None: of processes that we do not know


def main() -> None:
    as_it_stands = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_stands)
    parser.add_argument("stores", nargs="*", default=["sqlite", "postgresql"], help="sqlite, postgresql")
    parser.add_argument("--seconds", type=int, default=20, help="for each row")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--peer", nargs=2, metavar=("ROOT", "IDS"), help="another server's pings")
    parser.add_argument("--peer-pids", type=int, nargs="*", default=[])
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here: apt-get install wrk")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for store in options.stores:
        with tempfile.TemporaryDirectory() as folder, gateway(store, Path(folder)) as (url, process):
            ids = make_monitors(url)
            key = new_ping_key(url)
            measure_gateway(store, url, process, loads(ids, key), options)
    if options.peer is not None:
        measure_peer(*options.peer, [psutil.Process(pid) for pid in options.peer_pids], options)


def loads(ids: Sequence[str], key: str) -> list[Load]:
    by_id = [f"/ping/{one}" for one in ids]
    return [
        Load("GET by id", by_id),
        Load("POST by id", by_id, BODY),
        Load("GET by slug", [f"/ping/{key}/monitor-{number}" for number in range(MONITORS)]),
    ]


def measure_gateway(
    store: str, url: str, process: psutil.Process, all_loads: Sequence[Load], options: argparse.Namespace
) -> None:
    for load in all_loads:
        before = pings_kept(url)
        fire(url, load, WARM_UP_SECONDS, options.connections, [])
        warm = pings_kept(url)
        measured = fire(url, load, options.seconds, options.connections, [process])
        show(load.name, f"carapace, {store}", measured)
        if pings_kept(url) - warm < measured.answered - measured.bad or warm <= before:
            sys.exit(f"pings were lost: {measured.answered} answered, {pings_kept(url) - warm} kept")


def measure_peer(root: str, ids: str, processes: list[psutil.Process], options: argparse.Namespace) -> None:
    base, slash, path = root.partition("://")
    host, _, folder = path.partition("/")
    paths = [f"/{folder}/{one}" for one in Path(ids).read_text().split()]
    for load in (Load("GET by id", paths), Load("POST by id", paths, BODY)):
        url = f"{base}{slash}{host}"
        fire(url, load, WARM_UP_SECONDS, options.connections, [])
        show(load.name, "peer", fire(url, load, options.seconds, options.connections, processes))


def show(what: str, who: str, one: Measured) -> None:
    cpu = "–" if one.cpu_seconds is None else f"{one.cpu_seconds / one.answered * 1e6:,.0f}"
    numbers = (
        f"{one.seconds:.0f}", f"{one.answered:,}", f"{one.answered / one.seconds:,.0f}", cpu,
        f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.max_ms:.0f}", str(one.bad),
    )  # fmt: skip
    print(f"| {' | '.join((what, who, *numbers))} |", flush=True)


def fire(
    url: str, load: Load, seconds: int, connections: int, processes: Sequence[psutil.Process]
) -> Measured:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        paths = ", ".join(json.dumps(path) for path in load.paths)
        script.write(SCRIPT % {"paths": paths, "body": load.body})
        script.flush()
        before = _cpu(processes)
        wrk = ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s")
        command = [*wrk, "-s", script.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = json.loads(said.splitlines()[-1])
    return Measured(
        told["answered"], told["micros"] / 1e6, told["p50"] / 1000, told["p99"] / 1000, told["max"] / 1000,
        told["bad"], _cpu(processes) - before if processes else None,
    )  # fmt: skip


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@contextlib.contextmanager
def gateway(store: str, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Its address and its process."""
    with contextlib.ExitStack() as parts:
        environment = {
            **os.environ,
            "CARAPACE_CRON_PORT": "0",
            "CARAPACE_CRON_DATA_DIR": str(folder / "data"),
            "CARAPACE_CRON_ADMIN_TOKEN": TOKEN,
        }
        if store == "postgresql":
            server = parts.enter_context(postgresql_server(durable=True))
            environment |= {"CARAPACE_CRON_LEDGER": server.url(), "CARAPACE_CRON_JOB_STORE": "postgresql:"}
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "carapace_cron", "serve"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        parts.callback(process.wait)
        parts.callback(process.terminate)
        yield _address(process, folder / "log"), psutil.Process(process.pid)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"address +(\S+)", log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.05)
    sys.exit(f"the gateway did not start:\n{log.read_text()}")


def make_monitors(url: str) -> list[str]:
    return [
        str(call(url, "carapace.cron.monitors.create", {"data": _monitor(number)})["id"])
        for number in range(MONITORS)
    ]


def _monitor(number: int) -> dict[str, str]:
    return {"name": f"Monitor {number}", "slug": f"monitor-{number}"}


def new_ping_key(url: str) -> str:
    wish = {"scopes": ["ping"], "tenant": "default", "user": "admin"}
    return str(call(url, "carapace.cron.tokens.create", wish)["token"])


def pings_kept(url: str) -> int:
    query = urllib.request.Request(f"{url}/api/v3/checks/", headers={"X-Api-Key": TOKEN})
    with urllib.request.urlopen(query, timeout=60) as answer:
        return sum(check["n_pings"] for check in json.load(answer)["checks"])


def call(url: str, method: str, params: dict[str, object]) -> dict[str, object]:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/rpc", body, headers), timeout=30) as answer:
        told = json.load(answer)
    result = told.get("result", {})
    if not result.get("success"):
        sys.exit(f"{method}: {told}")
    data: dict[str, object] = result["data"]
    return data


if __name__ == "__main__":
    main()
