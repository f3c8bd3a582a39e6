"""What an S3 server really honours, found out at start: many accept a condition and ignore it.

About fifteen small requests on a key of its own, which is removed again. After silence and impossible answers
(a new key that exists already: a client resent what had been done) a question is asked anew, by itself: of
fifteen requests in bad weather one nearly always fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from carapace_cron.errors import Unavailable
from carapace_cron.ids import random_text
from carapace_cron.objects.s3_wire import Refusal, Silence, Wire

TRIES = 20  # of one question, which is five requests at most; the waits between them add up to 20 s
RIVALS = 3  # writers of one key at the same moment; check-then-act servers let two of them win

EtagForm = Literal["unquoted", "quoted"]
Pause = Callable[[int], Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """What the server honours; `findings` says in sentences what it does not."""

    create_if_absent: bool
    compare_and_swap: bool
    conditional_delete: bool
    etag_form: EtagForm = "unquoted"  # the form of an ETag that it accepts in a condition
    findings: tuple[str, ...] = ()

    @property
    def conditional_writes(self) -> bool:
        """Whether several instances may write to this store."""
        return self.create_if_absent and self.compare_and_swap


class _Unclear(Exception):
    """This answer shows nothing; another may."""


async def probe(wire: Wire, pause: Pause) -> Probe:
    """Find out. `pause(n)` is awaited before try n + 1 of a question. Raises `Unavailable` when one has no
    answer."""
    used: list[str] = []
    try:
        return await _probe(wire, pause, used)
    finally:
        for key in used:
            await _remove(wire, key)


def form(etag: str, form: EtagForm) -> str:
    return etag if form == "unquoted" else f'"{etag}"'


async def _probe(wire: Wire, pause: Pause, used: list[str]) -> Probe:
    """`used`: the keys that there may be an object under, added to as it goes."""

    async def creates_once() -> bool:
        used.append(f"cron/probe/{random_text()}.json")
        return await _creates_once(wire, used[-1])

    async def ask(question: Callable[[], Awaitable[T]]) -> T:
        return await _asked(wire, pause, question)

    creates = await ask(creates_once)
    key = used[-1]
    etag_form = await ask(lambda: _swap_form(wire, key))
    known = etag_form or "unquoted"
    swaps = etag_form is not None and await ask(lambda: _swaps_once(wire, key, known))
    deletes = await ask(lambda: _deletes_conditionally(wire, key, known))
    findings = []
    if not creates:
        findings.append("it creates an object that exists already (If-None-Match is ignored or refused)")
    if not swaps:
        findings.append("it writes over an object that has changed (If-Match is ignored or refused)")
    if not deletes:
        findings.append("it deletes an object that has changed (If-Match on DELETE is ignored or refused)")
    return Probe(creates, swaps, deletes, known, tuple(findings))


async def _asked(wire: Wire, pause: Pause, question: Callable[[], Awaitable[T]]) -> T:
    reason = ""
    for number in range(1, TRIES + 1):
        try:
            return await question()
        except (_Unclear, Silence) as error:
            reason = str(error)
        await pause(number)
    raise Unavailable(f"{wire.address} cannot be probed: {reason}")


async def _creates_once(wire: Wire, key: str) -> bool:
    first = await _try(wire, key, IfNoneMatch="*")
    if first == 412:
        raise _Unclear("a new key exists already")
    if first != 200:  # it does not know the condition; the rest needs an object all the same
        await wire.put(key, _body())
        return False
    return await _try(wire, key, IfNoneMatch="*") in (409, 412)


async def _swap_form(wire: Wire, key: str) -> EtagForm | None:
    """How this server wants an ETag, which must be the current one of a fresh read."""
    forms: tuple[EtagForm, ...] = ("unquoted", "quoted")
    for one in forms:
        before = await _etag(wire, key)
        status = await _try(wire, key, IfMatch=form(before, one))
        if status == 200:
            return one
        if await _etag(wire, key) != before:
            raise _Unclear("a write was refused and done")
    return None


async def _swaps_once(wire: Wire, key: str, etag_form: EtagForm) -> bool:
    stale = form(await _etag(wire, key), etag_form)
    rivals = await asyncio.gather(*(_try(wire, key, IfMatch=stale) for _ in range(RIVALS)))
    if not rivals.count(200):
        raise _Unclear("of several writers none won")
    return rivals.count(200) == 1 and await _try(wire, key, IfMatch=stale) in (409, 412)


async def _deletes_conditionally(wire: Wire, key: str, etag_form: EtagForm) -> bool:
    stale = form("0" * 32, etag_form)
    if await wire.get(key) is None:  # it was deleted in spite of the condition, at a try without an answer
        return False
    try:
        await wire.delete(key, IfMatch=stale)
    except Refusal as refusal:
        return refusal.status in (409, 412)
    return False


async def _try(wire: Wire, key: str, **condition: str) -> int:
    """The status that a write under this condition gets."""
    try:
        await wire.put(key, _body(), **condition)
    except Refusal as refusal:
        return refusal.status
    return 200


async def _etag(wire: Wire, key: str) -> str:
    current = await wire.get(key)
    if current is None:
        raise _Unclear("a written object is not there")
    return current[1]


async def _remove(wire: Wire, key: str) -> None:
    try:
        await wire.delete(key)
    except (Refusal, Silence):
        return  # a few bytes stay behind under cron/probe/, where nobody reads


def _body() -> bytes:
    return f'{{"writeId": "{random_text()}"}}'.encode()
