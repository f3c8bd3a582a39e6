"""Real S3 servers for tests, on loopback and on free ports: moto (exact, in memory) and SeaweedFS.

Each is a process of its own, ready when the block begins and gone when it ends; what it said is in the
error if it does not start. Clients read their credentials from the environment: `aws_environment`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS_KEY = "carapace"
SECRET_KEY = "carapace-secret"  # of servers that live as long as a test
READY_SECONDS = 30
STOP_SECONDS = 5


def aws_environment() -> dict[str, str]:
    """What a client needs to find these servers' credentials, and nothing of the machine's own."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """moto's S3 as a process; gives its endpoint URL. It forgets everything when it ends."""
    with free_ports(1) as (port,):
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running_server(command, f"http://127.0.0.1:{port}/moto-api/data.json", folder / "moto.log"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """SeaweedFS with its data under `folder`; gives its endpoint URL."""
    data = folder / "seaweedfs"
    data.mkdir(parents=True, exist_ok=True)
    identities = folder / "seaweedfs.json"
    identities.write_text(json.dumps(_identities()))
    with free_ports(5, twins=True) as ports:
        command = _weed_mini(data, identities, ports)
    s3 = ports[0]
    with running_server(command, f"http://127.0.0.1:{s3}/healthz", folder / "seaweedfs.log"):
        yield f"http://127.0.0.1:{s3}"


@contextmanager
def free_ports(count: int, *, twins: bool = False) -> Iterator[list[int]]:
    """Ports that nobody listens on, kept until the block ends. With `twins`, port + 10000 is free too:
    SeaweedFS takes it for gRPC."""
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = _hold(held, 0)
            if not twins:
                ports.append(port)
            elif port < 55_000:
                try:
                    _hold(held, port + 10_000)
                except OSError:
                    continue
                ports.append(port)
        yield ports


def _hold(held: ExitStack, port: int) -> int:
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    bound: int = listener.getsockname()[1]
    return bound


def _weed_mini(data: Path, identities: Path, ports: Sequence[int]) -> list[str]:
    s3, master, volume, filer, admin = ports
    return [
        str(Path(sys.executable).with_name("weed")),  # the package puts it beside the interpreter
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-s3.config={identities}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-admin.port={admin}",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-metricsPort=0",
    ]


def _identities() -> dict[str, object]:
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}


@contextmanager
def running_server(command: Sequence[str], ready_url: str, log: Path) -> Iterator[None]:
    """A process that serves until the block ends, ready when it begins, or `RuntimeError` with its log."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=_environment())
        try:
            _await_ready(process, ready_url, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **aws_environment()}


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:  # refused while it starts; an HTTP error is one of these too
            time.sleep(0.05)
    raise RuntimeError(f"no answer from {url}; the server said:\n{log.read_text()[-3000:]}")
