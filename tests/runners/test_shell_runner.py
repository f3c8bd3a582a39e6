"""The shell that is none: a hostile corpus, what works, and real programs that leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.errors import ConfigurationError, InvalidValue, WorkStopped
from carapace_cron.model.program import ProgramLimits, ProgramRule
from carapace_cron.runners.shell import ShellRunner

NOW = datetime(2026, 1, 5, 9, 7, 3, 250_000, tzinfo=UTC)
SH = ProgramRule(name="sh", path="/bin/sh", arguments=("-c",), more_arguments=".*")

# One list for each way out of a plain word.
REFUSED = [
    *(f"echo hi{end}" for end in ("; id", ";id", " && id", "&& id", " || id", " | id", "|id", " & id", "&",
      " |& id")),
    *(f"echo {word}" for word in ("$(id)", "`id`", "$HOME", "${HOME}", "$((1+1))", "$'x'", "a$b", "\\$x",
      "a\\ b")),
    *(f"echo {word}" for word in ('"$(id)"', '"`id`"', '"$HOME"', "'$HOME'", "'`id`'", '"a\\"b"', "'a\\b'",
      '"!!"')),
    *(f"echo hi {to} /tmp/x" for to in (">", ">>", "<", "2>", "&>", ">|", "<<", "<<<", "<>", ">&2 >")),
    *(f"echo {glob}" for glob in ("*", "/etc/*", "a?", "[ab]", "{a,b}", "{1..9}", "~", "~root", "!!", "!x",
      "^a^b", "#x")),
    *(f"echo a{blank}id" for blank in ("\n", "\r", "\r\n", "\t", "\v", "\f", "\x85", "\u2028", "\u2029",
      "\u00a0")),
    *(f"echo a{sign}b" for sign in ("\0", "\x1b[31m", "\x07", "\x7f", "\u200b", "\u202e", "\u2066",
      "\ufeff", "\ud800")),
    *("echo 'open", 'echo "open', "echo a'", "echo (id)", "echo a;", "echo -e x", "echo -n x", "echo -neE x"),
    *("ec\"\"ho hi", "'echo' hi", '"echo" hi', "e'ch'o hi", "\\echo hi", "ECHO hi", "Echo hi", "echo;hi",
      "/bin/echo hi"),
    *("./echo hi", "echo.exe hi", "echo2 hi", "env echo hi", "exec echo hi", "sudo echo hi",
      "command echo", "X=1 echo hi"),
    *("date -f /etc/passwd", "date --file=/etc/passwd", "date --fi=/etc/passwd", "date -r /etc/passwd",
      "date -s 0"),
    *("date --ref=/etc", "date --set=0", "date -d now", "date --date=now", "date 010100002026", "date -uR",
      "date -Ins"),
    *("date +%10Y", "date +%_d", "date +%-d", "date +%:z", "date +%", "date '+%F %'", "date +%Ec",
      "date +%q", "date +%é"),
    *("date +%F +%T", "date -R -I", "date -I +%F", "date -I date", "date %F", "date --help", "date -u x",
      "date ''"),
    *("pwd -P", "pwd -L", "pwd x", "pwd ''", "whoami --help", "whoami root", "whoami;id", "pwd|id",
      "pwd\nid", "whoami\n"),
    *("id", "ls", "rm -rf /", "sh -c id", "bash", "python3 -c 1", "cat /etc/passwd", "curl http://x",
      "true", "", "   "),
]  # fmt: skip

ACCEPTED = [
    ("echo", ""),
    ("echo hi", "hi"),
    ("echo  hi   there ", "hi there"),
    ("echo 'hi   there'", "hi   there"),
    ('echo "it\'s"', "it's"),
    ("echo 'say \"hi\"'", 'say "hi"'),
    ("echo a'b c'd", "ab cd"),
    ("echo ''", ""),
    ("echo '' x", " x"),
    ("echo 'a; b && c | d > e < f & g'", "a; b && c | d > e < f & g"),
    ('echo "* ? [x] {y} (z) ~ # ^"', "* ? [x] {y} (z) ~ # ^"),
    ("echo hi -n", "hi -n"),
    ("echo -x --y=z", "-x --y=z"),
    ("echo größer 日本 🎉", "größer 日本 🎉"),
    ("echo 100% a=b, c:d @e +f /g .", "100% a=b, c:d @e +f /g ."),
    ("date", "Mon Jan  5 09:07:03 UTC 2026"),
    ("date -u", "Mon Jan  5 09:07:03 UTC 2026"),
    ("date --utc", "Mon Jan  5 09:07:03 UTC 2026"),
    ("date -R", "Mon, 05 Jan 2026 09:07:03 +0000"),
    ("date -u -R", "Mon, 05 Jan 2026 09:07:03 +0000"),
    ("date -I", "2026-01-05"),
    ("date -Idate", "2026-01-05"),
    ("date -Ihours", "2026-01-05T09+00:00"),
    ("date -Iminutes", "2026-01-05T09:07+00:00"),
    ("date -Iseconds", "2026-01-05T09:07:03+00:00"),
    ("date +%F", "2026-01-05"),
    ("date '+%A, %d. %B %Y at %H:%M %Z'", "Monday, 05. January 2026 at 09:07 UTC"),
    ('date +"%s %N %j %u %V %y %p %I %l|%k|%e %%"', "1767604023 250000000 005 1 02 26 AM 09  9| 9| 5 %"),
    ("date +%D%n%T%t%R", "01/05/26\n09:07:03\t09:07"),
    ("date +%c", "Mon Jan  5 09:07:03 2026"),
    ("date +", ""),
    ("date +plain", "plain"),
    ("whoami", "carapace-cron"),
]


LOOK = """
import json, os, resource, sys
pid = os.getppid()
keeper = open(f"/proc/{pid}/environ").read()
limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in ("NOFILE", "CPU", "CORE")]
print(json.dumps({"environment": list(os.environ), "directory": os.getcwd(), "files": os.listdir(),
                  "stdin": sys.stdin.read(), "limits": limits, "keeper": keeper}))
"""


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def shell(work_dir: Path, *programs: ProgramRule) -> ShellRunner:
    return ShellRunner(programs, work_dir=work_dir, clock=ManualClock(NOW))


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(set(REFUSED)) >= 130 and len(ACCEPTED) >= 30


@pytest.mark.parametrize("command", REFUSED, ids=ascii)
async def test_it_refuses_what_only_a_shell_could_mean(command: str, tmp_path: Path, work) -> None:
    runner = shell(tmp_path)
    with pytest.raises(InvalidValue) as refusal:
        runner.check(command, None)
    assert refusal.value.field == "command"
    outcome = await runner.run(work(command))
    assert (outcome.status, outcome.permanent, outcome.output) == ("failure", True, "")


@pytest.mark.parametrize(("command", "output"), ACCEPTED)
async def test_it_does_the_four_commands_itself(command: str, output: str, tmp_path: Path, work) -> None:
    runner = shell(tmp_path)
    assert runner.claims(command)
    runner.check(command, None)
    outcome = await runner.run(work(command))
    assert (outcome.status, outcome.output, outcome.error) == ("success", output, None)


async def test_pwd_is_the_configured_directory(tmp_path: Path, work) -> None:
    assert (await shell(tmp_path).run(work("pwd"))).output == str(tmp_path)


def test_a_refusal_says_what_and_what_would_do(tmp_path: Path) -> None:
    for command, sentence in (
        ("echo hi; id", r'bad shell command: ";" is not allowed outside quotes'),
        ("echo a\nb", r"bad command: character 7 is U\+000A; expected one line of visible text"),
        ("date --file=x", r'date does not take "--file=x": expected -u, --utc, -R, -I'),
        ("cat x", r'"cat" is no command here: expected one of echo, date, pwd, whoami, such as echo hello'),
    ):
        with pytest.raises(InvalidValue, match=sentence):
            shell(tmp_path).check(command, None)


# Programs that the operator added


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"name": "echo", "path": "/bin/sh"}, "is there already"),
        ({"name": "gone", "path": "/nowhere/at/all"}, "to be an executable file"),
        ({"name": "etc", "path": "/etc"}, "to be an executable file"),
        ({"name": "passwd", "path": "/etc/passwd"}, "to be an executable file"),
    ],
)
def test_a_program_that_cannot_run_is_told_at_start(rule: dict[str, str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        shell(tmp_path, ProgramRule(**rule))


@pytest.mark.parametrize(
    "rule",
    [{"name": "x", "path": "bin/sh"}, {"name": "X", "path": "/bin/sh"}, {"name": "a b", "path": "/bin/sh"},
     {"name": "x", "path": "/bin/sh", "arguments": ["("]}],
)  # fmt: skip
def test_a_rule_is_checked_when_it_is_read(rule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ProgramRule.model_validate(rule)


def test_arguments_must_match_the_rule_as_a_whole(tmp_path: Path) -> None:
    runner = shell(
        tmp_path, ProgramRule(name="backup", path="/bin/sh", arguments=("[a-z]+",), more_arguments="-v")
    )
    for command in ("backup db", "backup 'db' -v -v"):
        assert runner.claims(command)
        runner.check(command, None)
    for command in ("backup", "backup db1", "backup 'db x'", "backup db -q", "backup db; id", "backup $x"):
        with pytest.raises(InvalidValue):
            runner.check(command, None)


async def test_a_program_gets_an_empty_directory_and_next_to_no_environment(
    tmp_path: Path, work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    limits = ProgramLimits(open_files=32, cpu_seconds=7)
    look = ProgramRule(name="look", path=str(tmp_path / "look"), limits=limits)
    _script(tmp_path / "look", f"exec {sys.executable} -I {tmp_path}/look.py\n")
    (tmp_path / "look.py").write_text(LOOK)
    outcome = await shell(tmp_path / "work", look).run(work("look"))
    assert outcome.status == "success", outcome
    seen = json.loads(outcome.output)
    assert set(seen["environment"]) - {"PWD", "LC_CTYPE"} == {"LANG", "PATH"}
    assert Path(seen["directory"]).parent == tmp_path / "work" and seen["files"] == []
    assert seen["stdin"] == "" and seen["limits"] == [32, 7, 0]
    assert "s3cret" not in seen["keeper"] and "LANG" in seen["keeper"]
    assert list((tmp_path / "work").iterdir()) == []


async def test_a_program_reads_of_the_run_that_started_this_one_on_its_stdin(
    tmp_path: Path, work, upstream, told
) -> None:
    command = "sh -c 'ls /proc/self/fd; pwd; ls -A; cat'"
    outcome = await shell(tmp_path, SH).run(work(command, upstream=upstream))
    *seen, told_as = outcome.output.splitlines()
    assert json.loads(told_as) == told
    assert seen[:4] == ["0", "1", "2", "3"], "3 is what ls reads the directory by"
    assert len(seen) == 5 and Path(seen[4]).parent == tmp_path
    assert (await shell(tmp_path).run(work("echo hello", upstream=upstream))).output == "hello"


@pytest.mark.parametrize(
    ("script", "status", "error", "output"),
    [
        ("echo out", "success", None, "out\n"),
        ("printf 'a'", "success", None, "a"),
        ("exit 3", "failure", "sh exited with status 3", ""),
        ("echo why >&2; exit 0", "success", None, "why\n"),
        ("nosuchcommand", "failure", "sh exited with status 127", "nosuchcommand"),
    ],
)
async def test_the_exit_status_decides(
    script: str, status: str, error: str | None, output: str, tmp_path: Path, work
) -> None:
    outcome = await shell(tmp_path, SH).run(work(f'sh -c "{script}"'))
    assert (outcome.status, outcome.error) == (status, error)
    assert output in outcome.output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_signal_is_named(number: signal.Signals, tmp_path: Path, work) -> None:
    kill = ProgramRule(name="kill", path=sys.executable, more_arguments=".*")
    code = f"import os; os.kill(os.getpid(), {int(number)})"
    outcome = await shell(tmp_path, kill).run(work(f'kill -I -c "{code}"'))
    assert outcome.error == f"kill was killed by signal {int(number)} ({number.name})"


async def test_a_flood_of_output_neither_blocks_the_program_nor_fills_memory(tmp_path: Path, work) -> None:
    flood = ProgramRule(name="flood", path=sys.executable, more_arguments=".*")
    code = 'print("first"); [print("x" * 999) for _ in range(9000)]; print("last")'
    outcome = await shell(tmp_path, flood).run(work(f"flood -I -c '{code}'"))
    assert outcome.status == "success" and outcome.metadata == {"exitStatus": 0, "truncated": True}
    assert outcome.output.startswith("first\n") and outcome.output.endswith("last\n")
    assert len(outcome.output) <= 65_536 and "bytes left out" in outcome.output


async def test_a_program_cannot_take_more_memory_than_its_limit(tmp_path: Path, work) -> None:
    limits = ProgramLimits(memory_bytes=200 * 1_048_576)
    hog = ProgramRule(name="hog", path=sys.executable, more_arguments=".*", limits=limits)
    outcome = await shell(tmp_path, hog).run(work("hog -I -c 'bytearray(400 * 1024 * 1024)'"))
    assert outcome.error == "hog exited with status 1" and "MemoryError" in outcome.output


# Stopping. Each script tells its processes by a number that nothing else has in its command line.


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"7{os.getpid()}{time.monotonic_ns() % 100_000}"
    yield mark
    for process in _marked(mark):
        process.kill()


def _marked(mark: str) -> list[psutil.Process]:
    """The live processes that have `mark` in their command line; the keeper, which has it too, among them."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if any(mark in part for part in process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


async def _until_running(mark: str, count: int) -> None:
    async with asyncio.timeout(10):
        while sum(process.info["cmdline"][0] == "sleep" for process in _marked(mark)) < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "sleeps", "at_most", "by", "exit_status"),
    [
        ("sleep {mark}", 1, 1.5, "SIGTERM", -15),
        ("sleep {mark} & sleep {mark} & wait", 2, 1.5, "SIGTERM", -15),
        ("(sleep {mark} & (sleep {mark} & sleep {mark})); wait", 3, 1.5, "SIGTERM", -15),
        ("trap 'exit 5' TERM; sleep {mark} & wait", 1, 1.5, "SIGTERM", 5),
        ("trap : TERM; while true; do sleep {mark}; done", 1, 4.0, "SIGKILL", -9),
        (
            "setsid sleep {mark} & setsid sh -c 'setsid sleep {mark} & sleep {mark}' & sleep {mark}",
            4,
            4.0,
            "SIGKILL",
            -15,
        ),
    ],
    ids=["child", "children", "grandchildren", "tidies up", "ignores SIGTERM", "sessions of their own"],
)
async def test_cancelling_returns_when_every_descendant_is_gone_and_shows_how_they_went(
    script: str, sleeps: int, at_most: float, by: str, exit_status: int, tmp_path: Path, work, mark: str
) -> None:
    program = tmp_path / "program"
    _script(program, script.format(mark=mark) + "\n")
    runner = shell(tmp_path / "work", ProgramRule(name="program", path=str(program)))
    running = asyncio.create_task(runner.run(work("program")))
    await _until_running(mark, sleeps)
    began = time.monotonic()
    running.cancel()
    with pytest.raises(WorkStopped) as stopped:
        await running
    assert _marked(mark) == []
    assert stopped.value.how == {"by": by, "exitStatus": exit_status, "processesLeft": 0}
    assert time.monotonic() - began < at_most + 2
    assert list((tmp_path / "work").iterdir()) == []


async def test_cancelling_twice_still_waits_for_the_end(tmp_path: Path, work, mark: str) -> None:
    program = tmp_path / "program"
    _script(program, f"trap '' TERM\nsleep {mark}\n")
    runner = shell(tmp_path / "work", ProgramRule(name="program", path=str(program)))
    running = asyncio.create_task(runner.run(work("program")))
    await _until_running(mark, 1)
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(WorkStopped):
        await running
    assert _marked(mark) == []


async def test_what_it_said_until_it_was_stopped_is_kept_and_its_last_words_too(
    tmp_path: Path, work, mark: str
) -> None:
    program = tmp_path / "program"
    _script(program, f"echo begun\ntrap 'echo tidied up; exit 0' TERM\nsleep {mark} & wait\n")
    runner = shell(tmp_path / "work", ProgramRule(name="program", path=str(program)))
    running = asyncio.create_task(runner.run(work("program")))
    await _until_running(mark, 1)
    running.cancel()
    with pytest.raises(WorkStopped) as stopped:
        await running
    assert stopped.value.output == "begun\ntidied up\n"
    assert stopped.value.how == {"by": "SIGTERM", "exitStatus": 0, "processesLeft": 0}


async def test_a_program_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path, work) -> None:
    program = tmp_path / "program"
    _script(program, "exec sleep 60\n")
    runner = shell(tmp_path / "work", ProgramRule(name="program", path=str(program)))
    running = asyncio.create_task(runner.run(work("program")))
    while not (tmp_path / "work").exists():
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises((WorkStopped, asyncio.CancelledError)):
        await running
    assert list((tmp_path / "work").iterdir()) == []
    assert _keepers() == []


def _keepers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "launch.py" in str(one.cmdline())]


async def test_a_keeper_that_hangs_is_killed_with_all_that_it_kept(
    tmp_path: Path, work, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carapace_cron.runners.subprocess_run.STOP_SECONDS", 0.2)
    program = tmp_path / "program"
    _script(program, f"setsid sh -c 'sleep {mark} & setsid sleep {mark}' &\nsleep {mark}\n")
    runner = shell(tmp_path / "work", ProgramRule(name="program", path=str(program)))
    running = asyncio.create_task(runner.run(work("program")))
    await _until_running(mark, 3)
    (keeper,) = _keepers()
    keeper.suspend()
    running.cancel()
    with pytest.raises(WorkStopped) as stopped:
        await running
    assert stopped.value.how == {"by": "SIGKILL", "exitStatus": -9, "processesLeft": 0}
    assert _marked(mark) == []


async def test_what_a_program_leaves_in_the_background_ends_with_it(tmp_path: Path, work, mark: str) -> None:
    program = tmp_path / "program"
    _script(program, f"setsid sleep {mark} >/dev/null 2>&1 &\nsleep {mark} &\necho started\n")
    outcome = await shell(tmp_path / "work", ProgramRule(name="program", path=str(program))).run(
        work("program")
    )
    assert (outcome.status, outcome.output) == ("success", "started\n")
    assert _marked(mark) == []


async def test_a_program_does_not_outlive_a_gateway_that_is_killed(tmp_path: Path, mark: str) -> None:
    program = tmp_path / "program"
    _script(program, f"setsid sleep {mark} &\nsleep {mark}\n")
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys; from pathlib import Path\n"
        "from carapace_cron.model.program import ProgramRule\n"
        "from carapace_cron.runners.subprocess_run import run_program\n"
        "asyncio.run(run_program(ProgramRule(name='p', path=sys.argv[1]), [], Path(sys.argv[2])))",
        str(program),
        str(tmp_path / "work"),
    )
    await _until_running(mark, 2)
    gateway.kill()
    await gateway.wait()
    async with asyncio.timeout(8):
        while _marked(mark):
            await asyncio.sleep(0.05)
