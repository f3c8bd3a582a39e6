"""``carapace-cron wrap``: real commands, with a monitor that hears, is slow, or is not there."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support.bare_monitor import BareMonitor, bare_monitor
from support.programs import PATIENCE_SECONDS, Ended, begun, end_of, ended

RID = "0b5c1d7e-2f3a-4b5c-8d6e-7f8091a2b3c4"
WRAP = (sys.executable, "-m", "carapace_cron", "wrap")


@pytest.fixture
async def monitor() -> AsyncIterator[BareMonitor]:
    async with bare_monitor() as one:
        yield one


def wrapped(monitor: BareMonitor, *command: str, flags: Sequence[str] = ()) -> list[str]:
    return [*WRAP, "--monitor", monitor.url, *flags, "--", *command]


async def wrap(monitor: BareMonitor, *command: str, flags: Sequence[str] = (), **options: Any) -> Ended:
    return await ended(*wrapped(monitor, *command, flags=flags), **options)


# What the monitor hears


async def test_it_tells_the_start_and_the_end_of_one_run(monitor: BareMonitor) -> None:
    end = await wrap(monitor, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert end == (3, b"out\n", "err\n")
    start, end = monitor.heard
    assert (start.method, start.path, start.body) == ("POST", "/ping/a-key/start", b"")
    assert (end.method, end.path, end.headers["Content-Type"]) == ("POST", "/ping/a-key/3", "text/plain")
    assert sorted(end.body.splitlines()) == [b"err", b"out"]
    assert start.query == end.query == {"rid": str(UUID(start.query["rid"]))}


async def test_it_takes_a_run_id_and_a_slug_that_is_to_be_made(monitor: BareMonitor) -> None:
    monitor.url += "/nightly?create=1"
    assert await wrap(monitor, "true", flags=["--rid", RID.upper()]) == (0, b"", "")
    assert [one.path for one in monitor.heard] == ["/ping/a-key/nightly/start", "/ping/a-key/nightly/0"]
    assert all(one.query == {"create": "1", "rid": RID} for one in monitor.heard)


async def test_the_end_of_the_output_is_sent_up_to_the_limit(monitor: BareMonitor) -> None:
    """Each byte that there is, and more of them than a pipe holds."""
    printed = bytes(range(256)) * 1000
    end = await wrap(monitor, "cat", given=printed, flags=["--tail", "3000"])
    assert end.stdout == printed
    assert (await monitor.hears("0")).body == printed[-3000:]


@pytest.mark.parametrize(("told", "sent"), [("7", b"3456789"), ("0", b""), (None, b"0123456789")])
async def test_a_monitor_that_takes_less_gets_the_last_of_it(
    monitor: BareMonitor, told: str | None, sent: bytes
) -> None:
    """It keeps the beginning of what it gets, and the reason of a failure is at the end."""
    monitor.headers = {} if told is None else {"Ping-Body-Limit": told}
    # The command ends once the start has been told: its answer has the limit.
    async with begun(*wrapped(monitor, "sh", "-c", "read go; printf 0123456789")) as process:
        await monitor.hears("start")
        await end_of(process, b"\n")
    assert (await monitor.hears("0")).body == sent


async def test_lines_keep_their_order_where_both_outputs_go_to_one_place(monitor: BareMonitor) -> None:
    script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done"
    end = await wrap(monitor, "sh", "-c", script, stderr=asyncio.subprocess.STDOUT)
    in_order = "".join(f"out {i}\nerr {i}\n" for i in range(1, 6)).encode()
    assert end == (0, in_order, "")
    assert (await monitor.hears("0")).body == in_order


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (["no-such-command"], 127, "there is no such command"),
        (["/dev/null"], 126, "it may not be executed"),
        (["./words"], 126, "it is no program"),
    ],
)
async def test_what_cannot_be_started_is_a_failure(
    monitor: BareMonitor, tmp_path: Path, command: list[str], status: int, reason: str
) -> None:
    (tmp_path / "words").write_text("echo hello\n")
    (tmp_path / "words").chmod(0o755)
    end = await wrap(monitor, *command, cwd=tmp_path)
    assert end.status == status
    assert end.stderr.startswith(f'carapace-cron wrap: cannot start "{command[0]}": {reason}')
    [ping] = monitor.heard
    assert ping.signal == str(status) and reason in ping.body.decode()


# Signals


async def test_a_command_that_a_signal_ends_is_128_and_its_number(monitor: BareMonitor) -> None:
    assert (await wrap(monitor, "sh", "-c", "kill -9 $$")).status == 137
    assert monitor.signals == ["start", "137"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_goes_to_the_command_and_all_that_it_started(
    monitor: BareMonitor, number: signal.Signals
) -> None:
    inner = f"trap 'exit 5' {number}; echo ready; while :; do sleep 0.05; done"
    outer = f"trap 'echo told' {number}; sh -c \"{inner}\"; echo inner $?; exit 9"
    async with begun(*wrapped(monitor, "sh", "-c", outer)) as process:
        assert process.stdout is not None and await process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert (await end_of(process))[:2] == (9, b"told\ninner 5\n")
    assert b"inner 5\n" in (await monitor.hears("9")).body, "beside what the shell says of its sleep"


async def test_a_signal_after_the_commands_end_does_not_stop_the_report(monitor: BareMonitor) -> None:
    """As when the whole group is told to end, and the command is quicker."""
    monitor.lets_go.clear()
    async with begun(*wrapped(monitor, "true")) as process:
        await monitor.hears("start")
        await asyncio.to_thread(until_over, process.pid)
        process.send_signal(signal.SIGTERM)
        monitor.lets_go.set()
        assert (await end_of(process)).status == 0
    assert monitor.signals == ["start", "0"]


def until_over(pid: int) -> None:
    """Until that process has no child any more."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while children.read_text():
        time.sleep(0.01)


async def test_what_was_ignored_stays_ignored(monitor: BareMonitor) -> None:
    words = wrapped(monitor, "sh", "-c", "kill -HUP $$; echo alive")
    assert await ended("sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *words) == (0, b"alive\n", "")


# Makes the terminal at its input its own, and becomes the program that its arguments name.
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_ctrl_c_at_a_terminal_reaches_the_command_once(monitor: BareMonitor) -> None:
    keyboard, terminal = pty.openpty()
    waits = "until [ $n ]; do sleep 0.1; done; sleep 0.1"  # a second time would be told, too
    script = f"trap 'n=x$n' INT; echo ready; {waits}; echo told $n; exit 7"
    words = wrapped(monitor, "sh", "-c", script)
    async with begun(sys.executable, "-c", AT_A_TERMINAL, *words, stdin=terminal) as process:
        assert process.stdout is not None and await process.stdout.readline() == b"ready\n"
        os.write(keyboard, b"\x03")
        assert await end_of(process) == (7, b"told x\n", "")
    os.close(keyboard)
    os.close(terminal)


# A monitor that is away


def nobody() -> BareMonitor:
    """Where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return BareMonitor(url=f"http://127.0.0.1:{free.getsockname()[1]}/ping/a-key")


async def test_a_monitor_that_is_away_does_not_matter() -> None:
    away = nobody()
    end = await wrap(away, "sh", "-c", "echo hello; exit 4", flags=["--timeout", "0.5"])
    origin = away.url.removesuffix("/ping/a-key")
    fault = f"the monitor at {origin} was not told of exit status 4: Connection refused"
    assert end == (4, b"hello\n", f"carapace-cron wrap: {fault}\n"), "and the key is not shown"


async def test_a_monitor_that_does_not_answer_is_not_waited_for_long(monitor: BareMonitor) -> None:
    monitor.lets_go.clear()
    before = time.monotonic()
    end = await wrap(monitor, "sh", "-c", "exit 4", flags=["--timeout", "0.6"])
    assert end.status == 4 and "was not told of exit status 4: " in end.stderr
    assert time.monotonic() - before < 5, "a busy machine's start, and 0.6 s"


async def test_what_may_pass_is_tried_again(monitor: BareMonitor) -> None:
    monitor.statuses = [500, 503, 429, 200]
    assert await wrap(monitor, "true", flags=["--timeout", "3"]) == (
        0, b"", f"carapace-cron wrap: the monitor at {monitor.url.removesuffix('/ping/a-key')} "
        "was not told of the start: it answered 500: OK\n",
    )  # fmt: skip
    assert monitor.signals == ["start", "0", "0", "0"]
    assert len({one.query["rid"] for one in monitor.heard}) == 1


@pytest.mark.parametrize("status", [404, 302])
async def test_what_will_not_pass_is_not_tried_again(monitor: BareMonitor, status: int) -> None:
    monitor.statuses = [status, status]
    end = await wrap(monitor, "true")
    assert end.status == 0 and f"was not told of exit status 0: it answered {status}: OK\n" in end.stderr
    assert monitor.signals == ["start", "0"]


# As without it


async def test_the_command_ends_when_nobody_reads_what_it_prints(monitor: BareMonitor) -> None:
    async with begun(*wrapped(monitor, "yes")) as process:
        assert process.stdout is not None and await process.stdout.readline() == b"y\n"
        process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| head -n 1` does
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 128 + signal.SIGPIPE


async def test_what_is_left_in_the_background_holds_up_no_report(monitor: BareMonitor) -> None:
    script = "exec 3<&0; (read line <&3; echo later) & echo done"
    async with begun(*wrapped(monitor, "sh", "-c", script)) as process:
        assert (await monitor.hears("0")).body == b"done\n"
        assert await end_of(process, b"\n") == (0, b"done\nlater\n", ""), "and what it prints is passed on"


async def test_it_ends_by_a_signal_when_only_the_background_is_left(monitor: BareMonitor) -> None:
    async with begun(*wrapped(monitor, "sh", "-c", "sleep 60 & echo $!")) as process:
        assert process.stdout is not None
        left = int(await process.stdout.readline())
        await monitor.hears("0")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
        os.kill(left, signal.SIGKILL)


async def test_with_no_tail_the_output_does_not_come_through_it(monitor: BareMonitor, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        await wrap(monitor, "readlink", "/proc/self/fd/1", flags=["--tail", "0"], stdout=file)
    assert (tmp_path / "out").read_text() == f"{tmp_path / 'out'}\n"
    assert (await monitor.hears("0")).body == b""


async def test_open_files_and_the_environment_are_passed_on(monitor: BareMonitor, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as file:
        script = f"echo $GREETING > /dev/fd/{file.fileno()}"
        environment = {**os.environ, "GREETING": "hello"}
        await wrap(monitor, "sh", "-c", script, pass_fds=[file.fileno()], env=environment)
    assert (tmp_path / "lock").read_text() == "hello\n"


async def test_it_works_with_its_streams_closed(monitor: BareMonitor) -> None:
    words = wrapped(monitor, "sh", "-c", "echo hello; echo there >&2")
    assert (await ended("sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words)).status == 0
    assert (await monitor.hears("0")).body == b"hello\nthere\n"


async def test_a_full_disk_is_said_and_stops_nothing(monitor: BareMonitor) -> None:
    with Path("/dev/full").open("wb") as full:
        end = await wrap(monitor, "sh", "-c", "echo hello; exit 6", stdout=full)
    assert end.status == 6
    assert "not all that the command printed could be passed on: No space left on device" in end.stderr
    assert (await monitor.hears("6")).body == b"hello\n"


# The program


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--monitor", "cron.example.com", "--", "true"], "bad --monitor: expected a URL that begins with"),
        (["--monitor", "http://u:p@h/ping/a-key", "--", "true"], "bad --monitor: expected a host"),
        (["--monitor", "http://h:no/ping/a-key", "--", "true"], "bad --monitor: expected a host"),
        (["--monitor", "http://h/ping/a key", "--", "true"], "bad --monitor: expected a URL of printable"),
        (["--monitor", "http://h/", "--rid", "7", "--", "true"], 'bad --rid "7": expected a UUID'),
        (["--monitor", "http://h/", "--"], "Missing argument 'COMMAND...'"),
        (["--", "true"], "Missing option '--monitor'"),
    ],
)
async def test_what_it_cannot_read_is_status_2(flags: list[str], said: str) -> None:
    end = await ended(*WRAP, *flags)
    assert end.status == 2 and said in end.stderr
    assert "a-key" not in end.stderr and "a key" not in end.stderr


async def test_it_imports_little_before_the_command_starts(monitor: BareMonitor) -> None:
    """It stands in front of other people's jobs: the command kills it before it tells the monitor."""
    words = wrapped(monitor, "sh", "-c", "kill -9 $PPID")
    end = await ended(sys.executable, "-X", "importtime", *words[1:])
    imported = set(re.findall(r"\| +([\w.]+)$", end.stderr, re.MULTILINE))
    assert "carapace_cron.cli.wrap" in imported
    assert not imported & {"asyncio", "aiohttp", "pydantic", "sqlalchemy", "ssl", "carapace_cron.plugin"}
    assert len([name for name in imported if name.startswith("carapace_cron")]) < 12
