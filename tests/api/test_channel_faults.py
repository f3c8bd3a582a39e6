"""Services in trouble, over real sockets, while hours pass on the test's clock: each notice of a run and of a
monitor arrives, in its order, once for those who look at its key.

Killed processes are in ``tests/crash/notice_kills.py``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from carapace_cron.channels.courier import FIRST_DELAY, MAX_DELAY
from carapace_cron.ids import unique_key

HOOK, PAGER = "/hook", "/pagerduty"
Answer = Callable[[web.Request], Awaitable[web.Response]]


class Service:
    """A webhook and PagerDuty's Events v2, at one port that stays its own while nobody listens there.

    `answer`: what it does in place of taking what comes. `late`: where it takes the next one, and answers
    when nobody waits any more. `came`: every request, as (path, key); `taken`: those that were taken, as
    (path, what they tell); the webhook takes each key once.
    """

    def __init__(self) -> None:
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port.bind(("127.0.0.1", 0))
        self._runner: web.AppRunner | None = None
        self.answer: Answer | None = None
        self.late: set[str] = set()
        self.came: list[tuple[str, str]] = []
        self.taken: list[tuple[str, str]] = []
        self._keys: set[str] = set()
        self.open_incidents: set[str] = set()
        self.incidents = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port.getsockname()[1]}{path}"

    async def listen(self) -> None:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port.getsockname()[1], reuse_port=True).start()

    async def go_away(self) -> None:
        """Connections are refused from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def close(self) -> None:
        await self.go_away()
        self._port.close()

    def told(self, path: str) -> list[str]:
        return [what for where, what in self.taken if where == path]

    def requests(self, path: str) -> list[str]:
        return [key for where, key in self.came if where == path]

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        key = _key(request, body)
        self.came.append((request.path, key))
        if self.answer is not None:
            answer = await self.answer(request)
            if answer.status >= 300:
                return answer
        self._take(request.path, key, body)
        if request.path in self.late:
            self.late.remove(request.path)
            await asyncio.sleep(1.5)  # of real time: the channels wait a second
        return web.Response()

    def _take(self, path: str, key: str, body: Any) -> None:
        if path == PAGER:
            self._note_incident(body)
            self.taken.append((path, body["event_action"]))
        elif key not in self._keys:
            self._keys.add(key)
            self.taken.append((path, f"{body['event']} {body['status']}"))

    def _note_incident(self, event: Any) -> None:
        if event["event_action"] == "resolve":
            self.open_incidents.discard(event["dedup_key"])
        elif event["dedup_key"] not in self.open_incidents:
            self.open_incidents.add(event["dedup_key"])
            self.incidents += 1


def _key(request: web.Request, body: Any) -> str:
    """What the receiver joins by what belongs together."""
    if request.path == HOOK:
        assert request.headers["Idempotency-Key"] == body["id"]
        return str(body["id"])
    return str(body["dedup_key"])


class Scene:
    """Alice's monitor, which tells both channels, and a job of hers for each."""

    def __init__(self, api: Any, service: Service) -> None:
        self.api = api
        self.service = service
        self.monitor = ""
        self.jobs: dict[str, list[str]] = {}

    async def begin(self) -> None:
        made = await self.api.data(
            "monitors.create",
            [{"name": "Backup", "slug": "backup", "periodSeconds": 86_400, "channels": ["hook", "pager"]}],
            who="watcher",
        )
        self.monitor = made["id"]
        for word in ("agent: generate-report", "agent: fail"):
            made_jobs = [
                await self.api.create(
                    channelId=channel, command=word, cronExpression="0 0 1 1 *", retry={"maxAttempts": 1}
                )
                for channel in ("hook", "pager")
            ]
            self.jobs[word] = [job["id"] for job in made_jobs]

    async def ping(self, suffix: str = "") -> None:
        url = f"{self.api.house.server.url}/ping/{self.monitor}{suffix}"
        assert (await self.api.house.client.post(url)).status == 200
        await self.api.clock.advance(0)

    async def run(self, word: str) -> None:
        for job in self.jobs[f"agent: {word}"]:
            run = await self.api.data("run", [job])
            await self.api.run_in(run["id"])
            await self.api.clock.advance(0)

    async def deliveries(self, **asked: Any) -> list[dict[str, Any]]:
        """Oldest first; of runs and of monitors."""
        items = (await self.api.data("deliveries", {"limit": 500, **asked}, who="ada"))["items"]
        return list(reversed(items))

    async def states(self) -> set[str]:
        return {one["state"] for one in await self.deliveries()}

    async def channel(self, name: str) -> dict[str, Any]:
        items = (await self.api.data("channels.list"))["items"]
        return dict(next(one for one in items if one["id"] == name))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    await service.listen()
    yield service
    await service.close()


@pytest.fixture
async def scene(open_api: Any, service: Service) -> Scene:
    channels = {
        "hook": {"kind": "webhook", "url": service.url(HOOK), "timeout_seconds": 1},
        "pager": {
            "kind": "pagerduty", "url": service.url(PAGER), "routing_key": "0" * 32, "timeout_seconds": 1,
        },
    }  # fmt: skip
    api = await open_api(channels=channels)
    courier = api.cron._house._courier
    api.clock.busy.append(lambda: bool(courier._senders))  # a send takes real time: the clock waits for it
    scene = Scene(api, service)
    await scene.begin()
    return scene


OF_HOOK = [
    "monitor.down down", "run.completed success", "monitor.up up", "run.completed failure",
    "monitor.down down", "run.completed success", "monitor.up up",
]  # fmt: skip
OF_PAGER = ["trigger", "resolve", "resolve", "trigger", "trigger", "resolve", "resolve"]


async def say_no(request: web.Request) -> web.Response:
    return web.Response(status=503)


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)


@pytest.mark.parametrize("trouble", ["refuses connections", "answers 503", "hangs up"])
async def test_after_an_hour_of_trouble_all_of_it_arrives_in_order(
    scene: Scene, service: Service, trouble: str
) -> None:
    if trouble == "refuses connections":
        await service.go_away()
    service.answer = {"answers 503": say_no, "hangs up": hang_up}.get(trouble)
    for suffix, word in (("/fail", "generate-report"), ("", "fail"), ("/fail", "generate-report")):
        await scene.ping(suffix)
        await scene.run(word)
        await scene.api.clock.advance(1_200)
    await scene.ping()
    assert service.taken == [] and await scene.states() == {"waiting"}
    tries = [one["tries"] for one in await scene.deliveries()]
    assert sum(tries) < 2 * 15, "each quarter of an hour, after a few quicker ones"
    assert sum(count > 0 for count in tries) == 2, "of each channel the first one only"
    assert (await scene.channel("hook"))["state"] == (await scene.channel("pager"))["state"] == "resting"

    service.answer = None
    if trouble == "refuses connections":
        await service.listen()
    await scene.api.clock.advance(MAX_DELAY.total_seconds())
    assert service.told(HOOK) == OF_HOOK
    assert service.told(PAGER) == OF_PAGER
    assert service.incidents == 3 and len(service.open_incidents) == 1, "that of the job that fails"
    assert await scene.states() == {"delivered"}
    assert (await scene.channel("hook"))["state"] == (await scene.channel("pager"))["state"] == "well"


async def test_a_service_that_takes_it_and_answers_too_late_gets_it_again_under_the_same_key(
    scene: Scene, service: Service
) -> None:
    service.late = {HOOK, PAGER}
    await scene.ping("/fail")
    await scene.run("fail")
    await scene.api.clock.advance(FIRST_DELAY.total_seconds())
    for path in (HOOK, PAGER):
        first, second, other = service.requests(path)
        assert first == second != other, "the one behind it waited"
    assert service.told(HOOK) == ["monitor.down down", "run.completed failure"]
    assert service.told(PAGER) == ["trigger"] * 3 and service.incidents == 2, "joined by their dedup key"
    assert await scene.states() == {"delivered"}


async def test_one_that_hangs_delays_no_other(scene: Scene, service: Service) -> None:
    stuck = asyncio.Event()

    async def webhook_hangs(request: web.Request) -> web.Response:
        if request.path == HOOK:
            await stuck.wait()
        return web.Response()

    service.answer = webhook_hangs
    scene.api.clock.busy.pop()  # time goes on while it hangs
    await scene.ping("/fail")
    async with asyncio.timeout(10):
        while not service.told(PAGER):
            await asyncio.sleep(0.01)
    assert service.told(HOOK) == []
    stuck.set()


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_one_that_wishes_to_be_left_alone_is(scene: Scene, service: Service, form: str) -> None:
    busy = {HOOK, PAGER}

    async def wish_once(request: web.Request) -> web.Response:
        if request.path not in busy:
            return web.Response()
        busy.remove(request.path)
        at = scene.api.clock.now() + timedelta(seconds=90)
        wish = "90" if form == "seconds" else format_datetime(at, usegmt=True)
        return web.Response(status=429, headers={"Retry-After": wish})

    service.answer = wish_once
    await scene.ping("/fail")
    await scene.run("fail")
    await scene.ping()
    await scene.api.clock.advance(89)
    assert len(service.came) == 2 and service.taken == []
    await scene.api.clock.advance(1)
    assert service.told(HOOK) == ["monitor.down down", "run.completed failure", "monitor.up up"]
    assert service.told(PAGER) == ["trigger", "trigger", "resolve"]
    for path in (HOOK, PAGER):
        first, again, *others = service.requests(path)
        assert first == again and len(others) == 2, "no other was tried meanwhile"
    assert service.incidents == 2 and len(service.open_incidents) == 1, "that of the job"


async def test_what_it_refuses_for_good_can_be_seen_and_sent_again(scene: Scene, service: Service) -> None:
    async def gone(request: web.Request) -> web.Response:
        return web.Response(status=410)

    service.answer = gone
    await scene.ping("/fail")
    await scene.run("fail")
    service.answer = None
    await scene.ping()
    assert service.told(HOOK) == ["monitor.up up"], "it is not held up by what was refused"
    dead = (await scene.api.data("deliveries", {"state": "undeliverable"}, who="watcher"))["items"]
    assert {one["monitorId"] for one in dead} == {unique_key(scene.monitor)} and len(dead) == 2
    assert all("410 Gone" in one["error"] and one["event"] == "monitor.down" for one in dead)
    for one in dead:
        again = await scene.api.data("deliveries.resend", [one["id"]], who="watcher")
        assert (again["state"], again["monitorStatus"]) == ("waiting", "down")
    await scene.api.clock.advance(0)
    assert service.told(HOOK)[-1] == "monitor.down down"
    of_jobs = (await scene.api.data("deliveries", {"state": "undeliverable"}))["items"]
    assert {one["runStatus"] for one in of_jobs} == {"failure"} and len(of_jobs) == 2
    told = (await scene.api.data("events", {"action": "monitor.resent"}, who="watcher"))["items"]
    assert {one["after"]["deliveryId"] for one in told} == {one["id"] for one in dead}
    assert {one["subject"] for one in told} == {unique_key(scene.monitor)}
    assert (await scene.api.data("events", {"action": "monitor.resent"}))["items"] == [], "she has no scope"


async def test_a_test_message_that_arrives_lets_all_go_that_waits(scene: Scene, service: Service) -> None:
    await service.go_away()
    await scene.ping("/fail")
    await scene.run("fail")
    await scene.api.clock.advance(3_600)
    await service.listen()
    assert (await scene.api.data("channels.test", ["hook"]))["delivered"]
    await scene.api.clock.advance(0)
    assert service.told(HOOK) == ["channel.test success", "monitor.down down", "run.completed failure"]
    assert service.told(PAGER) == [], "it was not the one that was tried"
