"""Work that is told to stop has ended before its end is recorded, and the record shows how it ended.

Real programs, real connections and real time: what the executor waits for here is not on its clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from carapace_cron.errors import WorkStopped
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job
from carapace_cron.model.program import ProgramRule
from carapace_cron.model.run import Outcome, Run
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.ports.runner import Work
from carapace_cron.runners.http import HttpRunner
from carapace_cron.runners.shell import ShellRunner

from .conftest import Engine

NEVER = "0 0 1 1 *"  # not on any day of these stories
ONCE = {"retry": {"maxAttempts": 1}}


def using(engine: Engine, runner: Any) -> None:
    engine.executor._runners.runner = runner  # type: ignore[attr-defined]  # the registry of one


def shell(engine: Engine, tmp_path: Path, script: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    rule = ProgramRule(name="program", path=str(program))
    using(engine, ShellRunner([rule], work_dir=tmp_path / "work", clock=engine.clock))


async def begun(engine: Engine, job: Job, sign: Callable[[], bool]) -> Run:
    """A run of the job, once its work gives the sign that it is under way."""
    run = await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
    await until(engine, sign)
    return run


async def until(engine: Engine, sign: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not sign():
            await engine.clock.advance(0)
            await asyncio.sleep(0.01)


async def ended(engine: Engine, run: Run) -> tuple[Run, dict[str, Any]]:
    """The run once it has ended, and its last attempt."""
    async with asyncio.timeout(10):
        while (now := await engine.runs.get(run.id)) is not None and now.status in ("queued", "running"):
            await engine.clock.advance(0.01)
            await asyncio.sleep(0.01)
    assert now is not None
    return now, (await engine.runs.attempts(run.id))[-1]


def looking(engine: Engine, look: Callable[[], Any]) -> list[Any]:
    """What there is to see at the moment at which ends are recorded."""
    seen: list[Any] = []
    real = engine.runs.record_ends

    async def watched(ends):  # type: ignore[no-untyped-def]
        seen.append(look())
        return await real(ends)

    engine.runs.record_ends = watched  # type: ignore[method-assign]
    return seen


def children() -> list[psutil.Process]:
    """Programs that jobs began; the ledger's own server is none of them."""
    return [one for one in psutil.Process().children(recursive=True) if one.name() != "postgres"]


class TestPrograms:
    @pytest.mark.parametrize("how", ["cancel", "timeout"])
    async def test_its_end_is_recorded_when_no_process_is_left(
        self, engine: Engine, tmp_path: Path, how: str
    ) -> None:
        shell(engine, tmp_path, "echo begun; sleep 60 & setsid sleep 60 & touch ../../ready; sleep 60")
        limit = {"timeoutSeconds": 1.0 if how == "timeout" else 60}
        job = engine.add(NEVER, "program", **limit, **ONCE)
        seen = looking(engine, children)
        engine.start()
        run = await begun(engine, job, (tmp_path / "ready").exists)
        assert len(children()) >= 4
        if how == "cancel":
            await engine.runs.cancel(run.id, "alice asked", engine.clock.now())
        after, attempt = await ended(engine, run)
        assert seen == [[]], "at the moment of the record all were gone"
        assert after.status == {"cancel": "cancelled", "timeout": "timeout"}[how] == attempt["state"]
        # The one with a session of its own did not get the signal of the group.
        assert attempt["metadata"]["stopped"] == {"by": "SIGKILL", "exitStatus": -15, "processesLeft": 0}
        assert attempt["output"] == "begun\n", "what it had said until then is kept"

    async def test_what_ignores_the_signal_is_killed(self, engine: Engine, tmp_path: Path) -> None:
        shell(engine, tmp_path, "trap '' TERM; touch ../../ready; while :; do sleep 1; done")
        job = engine.add(NEVER, "program", **ONCE)
        engine.start()
        run = await begun(engine, job, (tmp_path / "ready").exists)
        await engine.runs.cancel(run.id, "alice asked", engine.clock.now())
        _, attempt = await ended(engine, run)
        assert attempt["metadata"]["stopped"] == {"by": "SIGKILL", "exitStatus": -9, "processesLeft": 0}
        assert children() == []

    async def test_a_stop_of_the_gateway_stops_it_with_proof(self, engine: Engine, tmp_path: Path) -> None:
        shell(engine, tmp_path, "touch ../../ready; sleep 60")
        job = engine.add(NEVER, "program", **ONCE)
        engine.start()
        run = await begun(engine, job, (tmp_path / "ready").exists)
        stopping = asyncio.create_task(engine.executor.stop(1))
        await engine.clock.advance(1)  # the grace
        await until(engine, stopping.done)
        assert (children(), engine.executor.active) == ([], 0)
        again = await engine.restarted()
        _, attempt = await ended(again, run)
        assert (attempt["state"], attempt["metadata"]["stopped"]["processesLeft"]) == ("lost", 0)

    async def test_one_that_ends_by_itself_has_nothing_to_show(self, engine: Engine, tmp_path: Path) -> None:
        shell(engine, tmp_path, "echo done")
        job = engine.add(NEVER, "program")
        engine.start()
        run = await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
        after, _ = await ended(engine, run)
        assert (after.status, after.metadata) == ("success", {"exitStatus": 0})


class SlowServer:
    """Takes requests and never answers; knows when the other side has gone."""

    def __init__(self) -> None:
        self.requests = 0
        self.gone = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SlowServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        assert await reader.read() == b""
        self.gone.set()
        writer.close()

    def callers(self) -> list[Any]:
        """The connections to it that this process still holds open."""
        connections = psutil.Process().net_connections("tcp")
        return [one for one in connections if one.raddr and one.raddr.port == self.port]


class TestUrls:
    @pytest.mark.parametrize("how", ["cancel", "timeout", "deadline"])
    async def test_its_end_is_recorded_when_the_connection_is_closed(self, engine: Engine, how: str) -> None:
        outbound = Outbound(AllowList.parse("127.0.0.0/8"))
        using(engine, HttpRunner(outbound))
        limits = {"timeout": {"timeoutSeconds": 0.3}, "deadline": {"deadlineSeconds": 0.3}}.get(how, {})
        async with SlowServer().serving() as server:
            job = engine.add(NEVER, f"http://127.0.0.1:{server.port}/slow", **limits, **ONCE)
            seen = looking(engine, server.callers)
            engine.start()
            run = await begun(engine, job, lambda: server.requests > 0)
            assert len(server.callers()) == 1
            if how == "cancel":
                await engine.runs.cancel(run.id, "alice asked", engine.clock.now())
            after, attempt = await ended(engine, run)
            assert seen == [[]], "at the moment of the record the socket was closed"
            await asyncio.wait_for(server.gone.wait(), 5)
        await outbound.close()
        assert after.status == {"cancel": "cancelled"}.get(how, "timeout")
        assert attempt["metadata"]["stopped"] == {"connection": "closed"}


class Stubborn:
    """A runner of somebody's: ends as the command says when it is cancelled."""

    kind = "stubborn"

    def __init__(self) -> None:
        self.working = False
        self.let_go = asyncio.Event()

    def claims(self, command: str) -> bool:
        return True

    def check(self, command: str, http: object) -> None: ...

    async def run(self, work: Work) -> Outcome:
        self.working = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.let_go.wait()
            self.working = False
            if work.command == "proof":
                raise WorkStopped({"by": "hand"}, "half\x1b[1m done") from None
            if work.command == "odd":
                raise WorkStopped({"when": object()}) from None
            if work.command == "answer":
                return Outcome("success", output="it was done by then")
            raise
        raise AssertionError("it is never done")


class TestOtherRunners:
    async def stopped(self, engine: Engine, command: str) -> tuple[Run, dict[str, Any]]:
        runner = Stubborn()
        using(engine, runner)
        job = engine.add(NEVER, command, **ONCE)
        engine.start()
        run = await begun(engine, job, lambda: runner.working)
        await engine.runs.cancel(run.id, "alice asked", engine.clock.now())
        await engine.clock.advance(60)
        waits = await engine.runs.get(run.id)
        assert waits is not None and waits.status == "running", "as long as the work has not ended"
        assert engine.executor.active == 1, "and its slot is not free"
        runner.let_go.set()
        return await ended(engine, run)

    async def test_what_a_runner_shows_is_kept(self, engine: Engine) -> None:
        after, attempt = await self.stopped(engine, "proof")
        assert (after.status, after.error) == ("cancelled", "alice asked")
        assert (attempt["metadata"], attempt["output"]) == ({"stopped": {"by": "hand"}}, "half done")

    async def test_one_that_only_lets_the_cancellation_out_has_ended(self, engine: Engine) -> None:
        after, attempt = await self.stopped(engine, "plain")
        assert (after.status, attempt["metadata"]) == ("cancelled", {"stopped": {"work": "ended"}})

    async def test_what_cannot_be_kept_is_left_out(self, engine: Engine) -> None:
        after, attempt = await self.stopped(engine, "odd")
        assert (after.status, after.error, attempt["metadata"]) == ("cancelled", "alice asked", None)

    async def test_work_that_was_done_by_then_is_no_stopped_work(self, engine: Engine) -> None:
        after, attempt = await self.stopped(engine, "answer")
        assert (after.status, after.output, attempt["metadata"]) == ("success", "it was done by then", None)


async def test_a_run_that_is_cancelled_as_it_is_claimed_never_begins(engine: Engine) -> None:
    job = engine.add(NEVER)
    run = await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
    real = engine.runs.claim

    async def cancelled_meanwhile(**asked):  # type: ignore[no-untyped-def]
        claimed = await real(**asked)
        for claim in claimed.claims:
            engine.executor._start(claim, engine.clock.monotonic())
            engine.executor._cancel(claim.run_id, "alice asked")
        return type(claimed)([], claimed.more, claimed.next_at, claimed.cancelled)

    engine.runs.claim = cancelled_meanwhile  # type: ignore[method-assign]
    engine.start(scheduler=False)
    after, attempt = await ended(engine, run)
    assert (after.status, attempt["metadata"]) == ("cancelled", {"stopped": {"work": "never began"}})
    assert engine.runner.began == []


async def test_an_attempt_whose_gateway_was_killed_has_no_proof(engine: Engine) -> None:
    job = engine.add(NEVER, "hang", **ONCE)
    engine.start()
    run = await begun(engine, job, lambda: engine.runner.working > 0)
    again = await engine.restarted()
    again.start()
    after, attempt = await ended(again, run)
    assert (after.status, attempt["state"], attempt["metadata"]) == ("failure", "lost", None)
