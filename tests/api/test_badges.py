"""Public badges and the ``hc_…`` series: what they tell, and what they keep to themselves."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

from carapace_cron.api.badge_drawing import badge_svg
from carapace_cron.api.check_metrics import check_series
from carapace_cron.ids import unique_key
from carapace_cron.model.actor import Actor
from carapace_cron.services.badges import Tally
from carapace_cron.services.monitors import MonitorDesk

ALICE = Actor("acme", "alice", frozenset({"monitors"}))
HOSTILE = """</svg><script>alert('"&')</script>"""


class Wall:
    """Somebody who looks at Alice's badges, which need no key."""

    def __init__(self, api: Any) -> None:
        self.api = api
        api.house.people.known["rw"] = ALICE
        self.desk: MonitorDesk = api.cron._house.watch.monitors

    async def monitor(self, **fields: Any) -> str:
        made = await self.desk.create(ALICE, {"periodSeconds": 60, "graceSeconds": 60, **fields})
        return made.watched.monitor.id

    async def ping(self, monitor_id: str, suffix: str = "") -> None:
        assert (await self.api.house.get(f"/ping/{monitor_id}{suffix}")).status == 200

    async def addresses(self) -> dict[str, dict[str, str]]:
        response = await self.api.house.get("/api/v3/badges/", headers={"X-Api-Key": "rw"})
        badges: dict[str, dict[str, str]] = (await response.json())["badges"]
        return badges

    async def look(self, address: str) -> tuple[int, str, str]:
        """Status, content type and text, asked from another page under another name."""
        parts = urlsplit(address)
        headers = {"Host": "badges.example", "Origin": "https://readme.example"}
        response = await self.api.house.get(parts.path, headers=headers)
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, response.content_type, await response.text()

    async def told(self, address: str) -> Any:
        status, content_type, text = await self.look(address)
        assert (status, content_type) == (200, "application/json")
        return json.loads(text)


@pytest.fixture
async def wall(open_api: Callable[..., Awaitable[Any]]) -> Wall:
    return Wall(await open_api())


def texts(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


async def test_a_monitors_badge_tells_two_states_or_three(wall: Wall) -> None:
    monitor = await wall.monitor(name="Backup")
    at = f"/b/{{}}/{unique_key(monitor)}"
    for change, two, three in (
        (None, "up", "up"),  # new
        (0, "up", "up"),
        (61, "up", "late"),
        (60, "down", "down"),
    ):
        if change == 0:
            await wall.ping(monitor)
        await wall.api.clock.advance(change or 0)
        assert (await wall.told(at.format(2) + ".json"))["status"] == two
        assert (await wall.told(at.format(3) + ".json"))["status"] == three
    assert await wall.told(at.format(2) + ".json") == {"status": "down", "total": 1, "grace": 0, "down": 1}
    assert await wall.told(at.format(3) + ".shields") == {
        "schemaVersion": 1,
        "label": "Backup",
        "message": "down",
        "color": "critical",
    }
    status, content_type, picture = await wall.look(at.format(2) + ".svg")
    assert (status, content_type) == (200, "image/svg+xml")
    assert texts(picture) == ["Backup", "down"]
    assert monitor not in picture


async def test_a_tags_badge_is_as_bad_as_the_worst_of_them(wall: Wall) -> None:
    well, late = await wall.monitor(tags=["prod", "a/b.c"]), await wall.monitor(tags=["prod"])
    failed = await wall.monitor(tags=["test"])
    await wall.ping(late)
    await wall.ping(failed, "/fail")
    await wall.api.clock.advance(61)
    await wall.ping(well)
    badges = await wall.addresses()
    assert list(badges) == ["*", "a/b.c", "prod", "test"]
    for tag, two, three, total in (
        ("prod", "up", "late", 2),
        ("test", "down", "down", 1),
        ("a/b.c", "up", "up", 1),
        ("*", "down", "down", 3),
    ):
        assert (await wall.told(badges[tag]["json"]))["status"] == two
        seen = await wall.told(badges[tag]["json3"])
        assert (seen["status"], seen["total"]) == (three, total)
        label = "all" if tag == "*" else tag
        assert (await wall.told(badges[tag]["shields"]))["label"] == label
        assert texts((await wall.look(badges[tag]["svg3"]))[2]) == [label, three]


async def test_one_badge_does_not_tell_the_address_of_another(wall: Wall) -> None:
    monitor = await wall.monitor(tags=["prod", "secret"])
    badges = await wall.addresses()
    assert await wall.addresses() == badges
    of_prod = badges["prod"]["json"]
    for address in (
        of_prod.replace("prod.json", "secret.json"),
        of_prod.replace("/prod.json", ".json"),
        of_prod.replace("-2/prod", "/../prod"),
        of_prod.replace(".json", ".html"),
        f"/b/2/{unique_key(monitor)}.html",
        f"/b/2/{'0' * 40}.svg",
    ):
        response = await wall.api.house.get(urlsplit(address).path)
        assert response.status == 404, address
        assert "secret" not in await response.text()
    assert (await wall.api.house.get(f"/b/2/{monitor}.svg")).status == 404


@pytest.mark.parametrize("label", [HOSTILE, "x" * 500, "", "ünïcode ✓"])
def test_a_label_is_a_text_and_nothing_else(label: str) -> None:
    picture = badge_svg(Tally(label, 1, 0, 1), with_late=True)
    root = ElementTree.fromstring(picture)
    elements = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert elements == {"svg", "title", "rect", "g", "text"}
    shown = texts(picture)[0]
    assert shown == label or (shown.endswith("…") and label.startswith(shown[:-1]))
    assert int(root.attrib["width"]) < 500


async def test_the_series_tell_each_monitor_and_tag(wall: Wall) -> None:
    up = await wall.monitor(name='say "hi" \\', tags=["prod"])
    down = await wall.monitor(name="down", tags=["prod", "db"])
    paused = await wall.monitor(name="paused")
    await wall.ping(up, "/start")
    await wall.ping(up)
    await wall.ping(down, "/fail")
    await wall.desk.pause(ALICE, paused)
    series = samples([*check_series(await wall.desk.list(ALICE), wall.desk.now())])
    key = unique_key(up)
    assert series[f'hc_check_up{{name="say \\"hi\\" \\\\", tags="prod", unique_key="{key}"}}'] == "1"
    assert sum(line.startswith("hc_check_") for line in series) == 4 * 3
    for name, ones in (("up", 2), ("started", 0), ("grace", 0), ("paused", 1)):
        values = [value for line, value in series.items() if line.startswith(f"hc_check_{name}")]
        assert values.count("1") == ones
    assert series[f'hc_check_paused{{name="paused", tags="", unique_key="{unique_key(paused)}"}}'] == "1"
    assert series['hc_tag_up{tag="db"}'] == series['hc_tag_up{tag="prod"}'] == "0"
    assert (series["hc_checks_total"], series["hc_checks_down_total"]) == ("3", "1")


def samples(lines: Sequence[str]) -> dict[str, str]:
    """Series → value; each line is one, and each name is introduced first."""
    text = "".join(lines)
    assert text.endswith("\n")
    found: dict[str, str] = {}
    introduced: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            introduced.add(line.split()[2])
        elif not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name.partition("{")[0] in introduced
            found[name] = value
    return found
