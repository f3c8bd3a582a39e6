"""The edge of the simulated world: a database, an object store, works and channels that fail as real ones do.

Each call travels, may be refused on its way, is done at one moment, and its answer travels back and may be
lost. What a call does is real: the ledger's own functions on a real SQLite, the rules of the real store.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random
from typing import Any, Literal, NoReturn, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from carapace_cron.database import Database
from carapace_cron.errors import InvalidValue, Unavailable
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.job import HttpRequest
from carapace_cron.model.notice import AnyNotice, Notice
from carapace_cron.model.run import Outcome
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.ports.object_store import Conflict, Listed, StoredObject, Unknown, WriteOutcome
from carapace_cron.ports.runner import Work

from .loop import PROCESS, Process, living
from .witness import START, Arrival, Evidence, Trouble, WorkLine

T = TypeVar("T")
LISTED_AT_ONCE = 5  # so that others write in the middle of a listing
Verdict = Literal[
    "done",
    "refused",  # never got there; the caller is told so
    "lost",  # done, but the caller hears that the service cannot be reached
    "late",  # the caller gave up waiting; it is done a while later
]


@dataclass
class Faults:
    """How a service fails, call by call. Rates are parts of all calls, times are seconds."""

    latency: tuple[float, float] = (0.0, 0.0)
    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    slow: float = 0.0  # calls that take up to `slow_seconds` on the way there, and half of them get there
    slow_seconds: float = 8.0


@dataclass
class Service:
    """Something behind a network, met by all gateways. `away`: nobody reaches it."""

    name: str
    dice: Random
    evidence: Evidence
    faults: Faults = field(default_factory=Faults)
    away: bool = False
    embedded: bool = False  # in the caller's own process: what it asked for dies with it

    def verdict(self) -> tuple[Verdict, float, float]:
        """What becomes of a call, and how long it travels there and back."""
        faults, roll = self.faults, self.dice.random()
        there, back = self._latency(), self._latency()
        rates: dict[Verdict, float] = {"refused": faults.refused, "lost": faults.lost, "late": faults.late}
        for verdict, rate in rates.items():
            if roll < rate:
                return verdict, there, back
            roll -= rate
        if roll < faults.slow:
            end: Verdict = self.dice.choice(("done", "refused"))
            return end, faults.slow_seconds * self.dice.uniform(0.5, 1.0), back
        return "done", there, back

    def _latency(self) -> float:
        low, high = self.faults.latency
        return self.dice.uniform(low, high) if high else 0.0

    async def call(self, work: Callable[[], T], failed: Callable[[str], T] | None = None) -> T:
        """Do `work` there. `failed` makes an answer of a failure whose effect is not known."""
        process, loop = living(), asyncio.get_running_loop()
        verdict, there, back = self.verdict()
        self._note_trouble(verdict, there, process)
        answer: asyncio.Future[T] = loop.create_future()
        here = contextvars.copy_context()

        def tell(result: Callable[[], T]) -> None:
            loop.call_later(back, _resolve, answer, result, context=here)

        def lost() -> T:
            if failed is None:
                raise self._unreachable()
            return failed(f"{self.name}: no answer")

        def land() -> None:
            if self.away or verdict == "refused":
                tell(self._refuse)
                return
            result = _result(work)
            tell(result if verdict == "done" else lost)

        on_the_wire = self._on_the_wire(process)
        if verdict == "late":
            tell(lost)
            loop.call_later(back + self.dice.uniform(0, 3), self._land_late, work, context=on_the_wire)
        else:
            loop.call_later(there, land, context=on_the_wire)
        return await answer

    def _on_the_wire(self, process: Process | None) -> contextvars.Context:
        """Where a request lives: half of them are sent already when their sender dies."""
        context = contextvars.copy_context()
        if process is not None and not self.embedded and self.dice.random() < 0.5:
            context.run(PROCESS.set, None)
        return context

    def _refuse(self) -> NoReturn:
        raise self._unreachable()

    def _unreachable(self) -> Unavailable:
        return Unavailable(f"{self.name} cannot be reached")

    def _land_late(self, work: Callable[[], Any]) -> None:
        if not self.away:
            _result(work)

    def _note_trouble(self, verdict: Verdict, there: float, process: Process | None) -> None:
        if (verdict != "done" or there > 1) and process is not None:
            now = asyncio.get_running_loop().time()
            what, gateway = f"a call of the {self.name} {verdict}", process.name.partition(".")[0]
            self.evidence.troubles.append(Trouble(what, now, now + there + 2, gateway))


def _resolve(answer: asyncio.Future[T], result: Callable[[], T]) -> None:
    if answer.done():  # the caller went away
        return
    try:
        answer.set_result(result())
    except Exception as error:  # noqa: BLE001  # whatever the call raised is the caller's
        answer.set_exception(error)
        answer.exception()  # looked at: a caller that is killed never will


def _result(work: Callable[[], T]) -> Callable[[], T]:
    """Do it now; what came of it can be told later."""
    try:
        result = work()
    except Exception as error:  # noqa: BLE001  # it is raised again where it is told
        raised = error

        def again() -> NoReturn:
            raise raised

        return again
    return lambda: result


@cache
def _sqlite() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)


@cache
def _connection() -> sa.Connection:
    """One connection for all stories of this process, so that statements are compiled once."""
    engine = sa.create_engine("sqlite+pysqlite://", creator=_sqlite, poolclass=StaticPool)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine.connect()


@cache
def _template() -> sqlite3.Connection:
    """An empty database at the newest schema."""
    template = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    engine = sa.create_engine("sqlite+pysqlite://", creator=lambda: template, poolclass=StaticPool)
    with engine.connect() as connection, connection.begin():
        upgrade(connection)
    return template


class DatabaseServer(Service):
    """The one database behind all gateways: empty when a story begins."""

    def clear(self) -> None:
        _template().backup(_sqlite())

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """`work` in a transaction of its own, at this very moment."""
        connection = _connection()
        with connection.begin():
            return work(connection)


class SimulatedDatabase(Database):
    """A gateway's way to the server: what `carapace_cron.database.Database` promises, without a thread."""

    def __init__(self, server: DatabaseServer) -> None:
        self.shared = not server.embedded
        self._server = server
        self._is_open = False
        self.in_flight = 0

    async def open(self) -> None:
        await self._server.call(lambda: None)
        self._is_open = True

    async def close(self) -> None:
        living()
        self._is_open = False

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._do(work)

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._do(work)

    async def _do(self, work: Callable[[sa.Connection], T]) -> T:
        if not self._is_open:
            raise Unavailable("the database is closed")
        with self._counted():
            # A write that began is finished even if its caller goes away.
            return await self._server.call(lambda: self._server.do(work))


class Bucket(MemoryObjects):
    """What all gateways keep their jobs in."""

    def page(self, prefix: str, after: str | None) -> list[Listed]:
        keys = sorted(key for key in self._objects if key.startswith(prefix) and key > (after or ""))
        return [Listed(key, self._objects[key].etag) for key in keys[:LISTED_AT_ONCE]]


class SimulatedObjects:
    """A gateway's way to the bucket: the rules of `MemoryObjects` over a network."""

    conditional_writes = True

    def __init__(self, bucket: Bucket, service: Service) -> None:
        self._bucket = bucket
        self._service = service

    async def get(self, key: str) -> StoredObject | None:
        return await self._service.call(lambda: _at_once(self._bucket.get(key)))

    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        def work() -> WriteOutcome:
            return _at_once(self._bucket.put(key, body, if_match=if_match, if_absent=if_absent))

        outcome = await self._service.call(work, failed=Unknown)
        if isinstance(outcome, Unknown) and self._service.dice.random() < 0.5:
            # As HTTP clients do: the same request again. The answer then is about the second one only.
            with suppress(Unavailable):
                outcome = await self._service.call(lambda: self._echo(key, if_match, body), failed=Unknown)
        return outcome

    def _echo(self, key: str, if_match: str | None, body: bytes) -> WriteOutcome:
        current = _at_once(self._bucket.get(key))
        if (None if current is None else current.etag) != if_match:
            return Conflict(None if current is None else current.etag)
        return _at_once(self._bucket.put(key, body, if_match=if_match, if_absent=if_match is None))

    async def delete(self, key: str, *, if_match: str) -> WriteOutcome:
        work = self._bucket.delete
        return await self._service.call(lambda: _at_once(work(key, if_match=if_match)), failed=Unknown)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        """In pages, each as it is when it is asked for."""
        while page := await self._service.call(partial(self._bucket.page, prefix, after)):
            for listed in page:
                yield listed
            after = page[-1].key

    async def close(self) -> None:
        living()


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the bucket waits for something: it has to answer at once")


class SimulatedRunner:
    """Works whose lines an outside witness writes: ``sim <what> <seconds> #<tag>``.

    ok, fail, refuse (permanently), raise, flaky (fails now and then), stubborn (takes its time to stop).
    """

    kind = "sim"
    example = "sim ok 2 #1"

    def __init__(self, evidence: Evidence, dice: Random) -> None:
        self._evidence = evidence
        self._dice = dice
        self.under_way: dict[tuple[str, str, int], tuple[Process, Work]] = {}

    def claims(self, command: str) -> bool:
        return command.startswith("sim ")

    def check(self, command: str, http: HttpRequest | None) -> None:
        if len(command.split()) != 4:
            expected = "expected sim <what> <seconds> #<tag>"
            raise InvalidValue(f'bad command "{command}": {expected}', field="command")

    async def run(self, work: Work) -> Outcome:
        process = living()
        assert process is not None
        _, what, seconds, tag = work.command.split()
        key = process.name, work.run_id, work.attempt
        self.under_way[key] = process, work
        self._write("begin", "", process, work)
        how = "raised"
        try:
            await asyncio.sleep(float(seconds) * self._dice.uniform(0.5, 1.0))
            how = self._how(what)
            if how == "raise":
                raise RuntimeError("the work fell over")
            return _outcome_of(how, f"{work.run_id} {work.attempt} {tag}")
        except asyncio.CancelledError:
            how = "stopped"
            if what == "stubborn":
                await asyncio.sleep(self._dice.uniform(0, 3))
            raise
        finally:
            if process.alive:
                del self.under_way[key]
                self._write("end", how, process, work)

    def _how(self, what: str) -> str:
        if what == "flaky":
            return self._dice.choice(("success", "failure", "degraded"))
        return {"ok": "success", "stubborn": "success", "fail": "failure"}.get(what, what)

    def end_of(self, process: Process) -> None:
        """It was killed, and all its work with it."""
        for key, (owner, work) in list(self.under_way.items()):
            if owner is process:
                del self.under_way[key]
                self._write("end", "killed", process, work)

    def _write(self, what: Literal["begin", "end"], how: str, process: Process, work: Work) -> None:
        line = WorkLine(
            at=asyncio.get_running_loop().time(),
            what=what,
            how=how,
            gateway=process.name.partition(".")[0],
            process=process.name,
            job_id=work.job_id,
            run_id=work.run_id,
            attempt=work.attempt,
            scheduled_for=(work.scheduled_for - START).total_seconds(),
            trigger=work.trigger,
            command=work.command,
        )
        self._evidence.works.append(line)


def _outcome_of(how: str, said: str) -> Outcome:
    if how in ("success", "degraded"):
        return Outcome("success" if how == "success" else "degraded", output=said)
    return Outcome("failure", output=said, error="it did not go well", permanent=how == "refuse")


@dataclass
class Place:
    """A channel's far end. `mood` is what it does with what it is handed, until the story changes it."""

    name: str
    dice: Random
    evidence: Evidence
    mood: Literal["well", "failing", "stalled", "busy", "refusing", "forgetful"] = "well"
    latency: tuple[float, float] = (0.0, 0.5)

    async def take(self, notice: Notice) -> None:
        living()
        mood = self.mood
        await asyncio.sleep(self.dice.uniform(*self.latency))
        if mood == "stalled":
            self._note(notice, has_it=False, failure="stalled")
            await asyncio.sleep(120)
        if mood == "failing":
            raise self._failure(notice, "it is broken")
        if mood == "busy":
            raise self._failure(notice, "too many requests", retry_after=self.dice.choice((0.0, 3.0, 40.0)))
        if mood == "refusing":
            raise self._failure(notice, "no such room", permanent=True)
        if mood == "forgetful":
            raise self._failure(notice, "it had it, and the answer was lost", has_it=True)
        self._note(notice, has_it=True)

    def _failure(
        self,
        notice: Notice,
        message: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        has_it: bool = False,
    ) -> DeliveryFailed:
        self._note(notice, has_it=has_it, failure="permanent" if permanent else message)
        return DeliveryFailed(message, permanent=permanent, retry_after_seconds=retry_after)

    def _note(self, notice: Notice, *, has_it: bool, failure: str = "") -> None:
        process = PROCESS.get()
        assert process is not None
        arrival = Arrival(
            at=asyncio.get_running_loop().time(),
            gateway=process.name.partition(".")[0],
            channel=self.name,
            notice=notice.id,
            run_id=notice.run_id,
            event=notice.event,
            status=notice.status,
            has_it=has_it,
            failure=failure,
        )
        self.evidence.arrivals.append(arrival)


class SimulatedChannel:
    """A gateway's way to a place."""

    kind = "sim"

    def __init__(self, place: Place) -> None:
        self._place = place

    async def send(self, notice: AnyNotice) -> None:
        assert isinstance(notice, Notice), "stories have no monitors"
        await self._place.take(notice)

    async def close(self) -> None:
        living()


def channel_kind(places: Mapping[str, Place]) -> Callable[[str, Mapping[str, Any]], SimulatedChannel]:
    """The factory for ``kind = "sim"``."""
    return lambda channel_id, _settings: SimulatedChannel(places[channel_id])
