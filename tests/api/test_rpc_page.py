"""docs/reference/rpc.md says what the methods do: its tables are compared, its examples run in order."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carapace_cron.api.methods import Methods, cron_methods
from carapace_cron.errors import Refused, Unavailable
from carapace_cron.ids import unique_key
from carapace_cron.model.job import HttpRequest, JobDraft, RetryPolicy

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "rpc.md").read_text()
METHODS = cron_methods(Methods)  # type: ignore[arg-type]  # only signatures are read
EXAMPLE = re.compile(r"(?:<!-- (.*?) -->\n\n)?```\n(→ .*?\n)?← (.*?)\n```", re.DOTALL)
ID = re.compile(
    r"\b(?:job_1769774400000_[0-9a-z]{20}|run_[0-9a-v]{26}|tok_[0-9a-z]{20}|cc[st]_[\w-]{32}"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
MORE = "…"  # members that the page leaves out


@dataclass
class Ids:
    """The ids of the page, and those that they stand for in this run."""

    real: dict[str, str] = field(default_factory=dict)

    def put_in(self, text: str) -> str:
        for shown, real in self.real.items():
            text = text.replace(unique_key(shown), unique_key(real))
        return ID.sub(lambda match: self.real.get(match[0], match[0]), text)

    def same(self, shown: Any, answered: Any) -> bool:
        """Whether the page's value stands for the answer's; an id that is new stands for the answer's."""
        if isinstance(shown, dict) and isinstance(answered, dict):
            named = {name: value for name, value in shown.items() if name != MORE}
            complete = MORE in shown or named.keys() == answered.keys()
            return complete and all(
                name in answered and self.same(value, answered[name]) for name, value in named.items()
            )
        if isinstance(shown, list) and isinstance(answered, list):
            return len(shown) == len(answered) and all(map(self.same, shown, answered))
        if isinstance(shown, str) and ID.fullmatch(shown) and isinstance(answered, str):
            return bool(ID.fullmatch(answered)) and self.real.setdefault(shown, answered) == answered
        if isinstance(shown, str):
            return self.put_in(shown) == answered
        return bool(shown == answered)


def examples() -> Iterator[tuple[str, str, str]]:
    """(what is said before it, request, answer)"""
    for note, request, answer in EXAMPLE.findall(PAGE):
        yield note, request.removeprefix("→ "), answer


async def test_the_examples_run(api: Any) -> None:
    ids = Ids()
    socket = await api.house.socket("alice")
    assert len(list(examples())) >= len(METHODS)
    for note, request, shown in examples():
        if note == "event":
            answered = await heard(socket)
        else:
            if note == "wait":
                await api.until(lambda: has_ended(api))
            who = said[1] if (said := re.match(r"as (\w+)", note)) else "alice"
            for address in re.findall(r"ping of (\S+)", note):
                await ping(api, ids.put_in(address))
            answered = await (await api.house.post(ids.put_in(request), who=who)).json()
        wanted = json.loads(shown)
        assert ids.same(wanted, answered), f"{request}\nthe gateway answers: {json.dumps(answered)}"
    await socket.close()


async def ping(api: Any, address: str) -> None:
    url = f"{api.house.server.url}/ping/{address}"
    async with api.house.client.post(url, data="disk full", headers={"User-Agent": "curl"}) as response:
        assert response.status == 200


async def has_ended(api: Any) -> bool:
    return any(run["finishedAt"] for run in await api.runs())


async def heard(socket: Any) -> Any:
    while True:
        message = await socket.receive_json(timeout=5)
        if message["method"] == "carapace.cron.event":
            return message


def test_every_method_has_its_section_with_its_params_in_order() -> None:
    sections = dict(re.findall(r"^### (\S+)\n\nParams: (.*?) · needs", PAGE, re.MULTILINE))
    assert sections.keys() == METHODS.keys()
    for name, said in sections.items():
        assert re.findall(r"`(.*?)`", said) == _parameters(name), name


def _parameters(name: str) -> list[str]:
    parameters = list(inspect.signature(METHODS[name]).parameters.values())[1:]
    return [one.name + ("" if one.default is one.empty else "?") for one in parameters]


def test_every_code_is_in_the_table() -> None:
    section = PAGE.partition("## The envelope")[2].partition("\n## ")[0]
    codes = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    assert sorted(codes) == sorted({kind.code for kind in (*Refused.__subclasses__(), Unavailable)})


def test_every_field_of_a_job_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \| .*\|$", PAGE, re.MULTILINE))
    for name, default in _defaults():
        said = rows[name].strip("`")
        if said in ("required", "none"):
            assert default is (... if said == "required" else None), name
        else:
            assert (said if isinstance(default, str) else json.loads(said)) == default, name


def _defaults() -> Iterator[tuple[str, Any]]:
    for name, one in JobDraft.model_fields.items():
        if name in ("retry", "http"):
            continue
        yield str(one.alias), ... if one.is_required() else _json(one.get_default(call_default_factory=True))
    for outer, record in (("retry", RetryPolicy), ("http", HttpRequest)):
        for one in record.model_fields.values():
            yield f"{outer}.{one.alias}", _json(one.get_default(call_default_factory=True))


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
