"""A real Prometheus, and promtool beside it: the machine's own, or else Debian's package, unpacked.

Nothing is installed: the package is downloaded by `apt-get` into a folder of the checkout, where later runs
find it. A machine that has neither fails the tests and says what would do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.s3_servers import free_ports, running_server

FOLDER = Path(__file__).parents[2] / ".prometheus"
PACKAGE = "prometheus"


@dataclass(frozen=True)
class Programs:
    """Where `prometheus` and `promtool` are."""

    folder: Path

    def promtool(self, *arguments: str, given: str = "") -> str:
        """What it says. Raises `AssertionError` with that when it finds a fault."""
        command = [str(self.folder / "promtool"), *arguments]
        done = subprocess.run(
            command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def installed() -> Programs:
    """Prometheus, unpacked first if it has to be."""
    own = shutil.which("prometheus")
    if own is not None and (Path(own).parent / "promtool").exists():
        return Programs(Path(own).parent)
    if not FOLDER.exists():
        _unpack_debians()
    return Programs(FOLDER / "usr" / "bin")


def _unpack_debians() -> None:
    """Beside its place first: another process may be doing the same, and whoever is later finds it there."""
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix=".prometheus-") as folder:
        _download(Path(folder))
        (package,) = Path(folder).glob("*.deb")
        unpacked = Path(folder) / "unpacked"
        _run("dpkg", "-x", str(package), str(unpacked), folder=Path(folder))
        try:
            unpacked.rename(FOLDER)
        except OSError:
            assert FOLDER.exists()


def _download(folder: Path) -> None:
    try:
        _run("apt-get", "download", PACKAGE, folder=folder)
    except AssertionError:  # a machine that is new has no list of packages yet
        _run("apt-get", "update", folder=folder)
        _run("apt-get", "download", PACKAGE, folder=folder)


def _run(*command: str, folder: Path) -> None:
    wanted = "expected prometheus and promtool on the PATH, or apt-get that can download them"
    if shutil.which(command[0]) is None:
        raise AssertionError(f"there is no {command[0]}: {wanted}")
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)} failed: {wanted}\n{done.stdout[-2000:]}"


@contextmanager
def prometheus(folder: Path, *, target: str, token: str, rules: Path) -> Iterator[str]:
    """Prometheus as a process that scrapes `target` (host:port) each second; gives its own URL."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "carapace_cron",
                "authorization": {"credentials": token},
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    written = folder / "prometheus.yml"
    written.write_text(json.dumps(config))  # JSON is YAML, too
    programs = installed()
    programs.promtool("check", "config", str(written))
    with free_ports(1) as (port,):
        address = f"127.0.0.1:{port}"
    command = [
        str(programs.folder / "prometheus"),
        f"--config.file={written}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with running_server(command, f"http://{address}/-/ready", folder / "prometheus.log"):
        yield f"http://{address}"
