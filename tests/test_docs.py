"""The pages say what is so: links lead somewhere, commands exist, the answers shown are those given."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from carapace_cron.channels.settings import SECRET_PREFIX
from carapace_cron.cli.serve import FIRST_JOB, MESSAGES
from carapace_cron.cli.settings import PREFIX, Settings, load_settings, unknown_variables
from carapace_cron.clock import ManualClock
from carapace_cron.errors import Refused
from carapace_cron.gateway.testing import House, running_gateway
from carapace_cron.model.actor import SCOPES
from carapace_cron.model.program import ProgramLimits, ProgramRule
from carapace_cron.plugin import PLUGIN_ID, CronPlugin
from carapace_cron.runners.registry import Runners
from carapace_cron.runners.shell import ShellRunner
from carapace_cron.settings import CronSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


# Links and commands


def anchors(page: Path) -> set[str]:
    """The headings as links name them: ``## Host and Origin`` is ``#host-and-origin``."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"there is no {target}"
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading #{anchor}"


def test_every_page_can_be_found_in_the_index() -> None:
    listed = {target for target, _ in links(DOCS / "index.md")}
    pages = {page for page in DOCS.rglob("*.md") if page.parent.name != "decisions"}
    assert pages - listed == {DOCS / "index.md"}


@each_page
def test_every_make_command_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join([*blocks(page, "sh"), *re.findall(r"`([^`\n]+)`", page.read_text())])
    assert set(re.findall(r"^make ([a-z]+)", code, re.MULTILINE)) <= targets


@each_page
def test_every_example_parses(page: Path) -> None:
    for text in blocks(page, "toml"):
        tomllib.loads(text)
    for text in blocks(page, "python"):
        # Some are fragments of an async function, so they are read as the body of one.
        indented = "".join(f"    {line}" for line in text.splitlines(keepends=True))
        ast.parse(f"async def example():\n{indented}")


@each_page
def test_every_settings_file_is_accepted(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        if text.startswith("# carapace.toml"):
            (tmp_path / "carapace.toml").write_text(text)
            load_settings(tmp_path / "carapace.toml")


@each_page
def test_every_variable_is_one_that_something_reads(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b", page.read_text())):
        monkeypatch.setenv(name, "")
    assert unknown_variables() == []


def test_a_channels_secret_is_no_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SECRET_PREFIX}OPS_HOOK", "a secret")
    monkeypatch.setenv(f"{PREFIX}PROT", "1")
    assert unknown_variables() == [f"{PREFIX}PROT is not a setting; did you mean {PREFIX}PORT?"]


# Settings

SETTINGS = DOCS / "reference" / "settings.md"


class Row(NamedTuple):
    default: str
    bounds: str


def table(heading: str, column: str) -> dict[str, Row]:
    """The rows of the tables whose first column is `column`, in the section of that heading, by name."""
    section = SETTINGS.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    part = section.split(f"\n| {column} |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|([^|]*)\|", part, re.MULTILINE)
    return {name: Row(default.strip(), bounds.strip()) for name, default, bounds in rows}


def told(model: type[BaseModel], names: set[str] | None = None) -> dict[str, Row]:
    """What the page has to say of each field."""
    fields = model.model_fields.items()
    return {name: Row(_default(one), _bounds(one)) for name, one in fields if names is None or name in names}


def _default(one: FieldInfo) -> str:
    if one.is_required():
        return "required"
    default = one.get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, BaseModel):
        return "`{}`"
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    return f"`{json.dumps(default, default=str)}`"


def _bounds(one: FieldInfo) -> str:
    names = ("ge", "gt", "le", "max_length")
    limits = {name: getattr(bound, name) for bound in one.metadata for name in names if hasattr(bound, name)}
    if "gt" in limits:
        return f"above {limits['gt']}"
    if "max_length" in limits:
        return f"at most {limits['max_length']}"
    return f"{limits['ge']}–{limits.get('le', '')}" if "ge" in limits else ""


def test_the_settings_page_has_each_setting_with_its_default_and_bounds() -> None:
    sections = ("The gateway", "Jobs and runs", "Where things are kept")
    page = {name: row for section in sections for name, row in table(section, "name").items()}
    assert page == told(Settings)


def test_the_settings_page_has_each_setting_of_a_program() -> None:
    assert table("Programs", "name") == told(ProgramRule)
    assert table("Programs", "limit") == told(ProgramLimits)


def test_the_manifest_has_the_settings_of_the_extension() -> None:
    manifest = tomllib.loads((ROOT / "carapace_cron" / "plugin.toml").read_text())["settings"]
    assert set(manifest) == set(CronSettings.model_fields)
    for name, row in told(CronSettings).items():
        given = manifest[name]
        assert f"`{json.dumps(given['default'])}`" == row.default
        low, high = given.get("minimum"), given.get("maximum", "")
        assert row.bounds in ("" if low is None else f"{low}–{high}", "above 0"), name


# Words

SYNONYMS = {  # what nobody may call it → the word of docs/glossary.md
    "execution": "run",
    "invocation": "run",
    "cronjob": "job",
    "destination": "channel",
    "principal": "actor",
    "customer": "tenant",
}
OF_THE_WIRE = {"execution_count", "next_execution_at", "execution_time_ms"}  # the callers' names
OF_OTHERS = {"execution_options", "get_execution_options"}  # SQLAlchemy's


def identifiers(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        named = (getattr(node, name, None) for name in ("name", "id", "attr", "arg", "asname"))
        found.update(name for name in named if isinstance(name, str))
    return found


@pytest.mark.parametrize(("synonym", "word"), SYNONYMS.items())
def test_the_code_uses_the_words_of_the_glossary(synonym: str, word: str) -> None:
    for path in (ROOT / "carapace_cron").rglob("*.py"):
        used = {name for name in identifiers(path.read_text()) if synonym in name.lower()}
        assert not used - OF_THE_WIRE - OF_OTHERS, f"{path} says {synonym}; the glossary says {word}"


def test_the_glossary_has_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z -]+) \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 30
    assert len(words) == len(set(words))


# Conversations: each request of a page is sent, and the answer below it compared

RESULTS = {"carapace.cron.runs", "carapace.gateway.messages"}  # what is there some time after it was caused


class Asked(NamedTuple):
    method: str
    params: Mapping[str, Any]
    answer: Any


def conversation(page: Path) -> list[Asked]:
    """The requests that have an answer, in their order: a block of `sh` with the block of `json` after it."""
    found: list[Asked] = []
    request: tuple[str, Any] | None = None
    for kind, text in BLOCK.findall(page.read_text()):
        request = _request(text) if kind == "sh" else request
        if kind == "json" and request is not None:
            found.append(Asked(*request, _pattern(text)))
            request = None
    return found


def _request(text: str) -> tuple[str, Any] | None:
    if short := re.search(r"^rpc (\S+) '(.*)'$", text, re.MULTILINE):
        return short[1], json.loads(re.sub(r"'(\$[A-Z]+)'", r"\1", short[2]))  # the shell's own quotes
    if full := re.search(r"-d '(.*)'$", text, re.MULTILINE):
        return (body := json.loads(full[1]))["method"], body["params"]
    return None


def _pattern(text: str) -> Any:
    """The answer as JSON, without its request's id and the marks where something was left out."""
    shown = json.loads(re.sub(r",\s*…(?=\s*[}\]])", "", text))
    return {name: value for name, value in shown.items() if name != "id"}


def assert_says(answer: Any, shown: Any) -> None:
    """`answer` has all that the page shows; an … within a text stands for what may be different."""
    if isinstance(shown, dict):
        assert isinstance(answer, dict) and set(shown) <= set(answer), f"{shown} is not in {answer}"
        for name, value in shown.items():
            assert_says(answer[name], value)
    elif isinstance(shown, list):
        assert isinstance(answer, list) and len(shown) <= len(answer), f"{shown} is not in {answer}"
        for one, pattern in zip(answer, shown, strict=False):
            assert_says(one, pattern)
    elif isinstance(shown, str) and "…" in shown:
        without_chance = re.sub(r"(job_\d+_|run_)[0-9a-z]*…", r"\1…", shown)
        assert re.fullmatch(".+".join(map(re.escape, without_chance.split("…"))), answer, re.DOTALL)
    else:
        assert answer == shown


class Reader:
    """Somebody who types what the page says, with `$JOB` and `$RUN` set to the ids of the answer before."""

    def __init__(self, house: House, token: str, clock: ManualClock) -> None:
        self._house = house
        self._token = token
        self._clock = clock
        self._seen: dict[str, str] = {}

    async def ask(self, asked: Asked) -> Any:
        typed = re.sub(r"\$(JOB|RUN)\b", lambda name: self._seen[name[1]], json.dumps(asked.params))
        answer = await self._house.call(asked.method, json.loads(typed), who=self._token)
        for found in re.findall(r'"id": "((?:job|run)_[0-9a-z_]+)"', json.dumps(answer)):
            self._seen[found.partition("_")[0].upper()] = found
        return answer

    async def hear(self, asked: Asked) -> None:
        """Ask; where the page says to wait for a result, let up to a minute pass."""
        for _ in range(12 if asked.method in RESULTS else 0):
            with suppress(AssertionError):
                return assert_says(await self.ask(asked), asked.answer)
            await self._clock.advance(5)
        assert_says(await self.ask(asked), asked.answer)


@asynccontextmanager
async def reader(tmp_path: Path, start: datetime) -> AsyncIterator[Reader]:
    clock = ManualClock(start)
    cron = CronPlugin(clock)
    async with (
        aiohttp.ClientSession() as client,
        running_gateway(tmp_path, client, plugins={PLUGIN_ID: cron}, clock=clock) as house,
    ):
        assert cron.new_admin_token is not None
        yield Reader(house, cron.new_admin_token, clock)


@pytest.mark.parametrize("page", [README, DOCS / "tutorial.md"], ids=lambda page: page.name)
async def test_the_answers_are_those_that_the_page_shows(page: Path, tmp_path: Path) -> None:
    talk = conversation(page)
    assert len(talk) >= 2
    async with reader(tmp_path, datetime(2026, 11, 21, 5, 43, 11, 715967, tzinfo=UTC)) as somebody:
        for asked in talk:
            await somebody.hear(asked)


# Pages whose examples need more than parsing


async def test_the_tests_of_the_kits_page_pass(tmp_path: Path) -> None:
    examples = blocks(DOCS / "howto" / "write-tests-with-the-kit.md", "python")
    ran = []
    for text in examples:
        names: dict[str, Any] = {}
        exec(compile(text, text.splitlines()[0], "exec"), names)
        for name, test in names.items():
            if name.startswith("test_"):
                given = {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(test).parameters else {}
                result = test(**given)
                if inspect.isawaitable(result):
                    await result
                ran.append(name)
    assert len(ran) == len(examples) == 3


PROGRAM_PAGE = DOCS / "howto" / "add-a-program.md"
COMMANDS = re.findall(r"^\| `([^`]+)` \| (runs|refused)", PROGRAM_PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("command", "fate"), COMMANDS)
def test_a_program_takes_what_its_page_says(command: str, fate: str, tmp_path: Path) -> None:
    (text,) = blocks(PROGRAM_PAGE, "toml")
    (given,) = tomllib.loads(text)["programs"]
    rule = ProgramRule.model_validate({**given, "path": sys.executable})  # some file that can be run
    shell = ShellRunner([rule], work_dir=tmp_path, clock=ManualClock(datetime(2026, 11, 21, tzinfo=UTC)))
    runners = Runners([shell])
    if fate == "runs":
        runners.check(command, None)
    else:
        with pytest.raises(Refused):
            runners.check(command, None)


def test_each_fate_is_among_the_commands_of_that_page() -> None:
    assert {fate for _, fate in COMMANDS} == {"runs", "refused"}


@pytest.mark.parametrize(("host", "status"), [("cron.example.com", 200), ("other.example.com", 403)])
async def test_the_proxys_name_is_let_in_and_no_other(host: str, status: int, tmp_path: Path) -> None:
    (text,) = blocks(DOCS / "howto" / "run-behind-a-proxy.md", "toml")
    headers = {"Host": host, "Origin": f"https://{host}"}
    async with (
        aiohttp.ClientSession() as client,
        running_gateway(tmp_path, client, settings=tomllib.loads(text)) as house,
        await house.get("/healthz", headers=headers) as response,
    ):
        assert response.status == status


def test_the_house_page_draws_the_floors() -> None:
    tree = ast.parse((ROOT / "tests" / "test_house.py").read_text())
    drawn = next(one.value for one in tree.body if isinstance(one, ast.AnnAssign) and one.value)
    rows = re.findall(r"^\| \d [^|]+\| ([^|]+)\|", (DOCS / "house.md").read_text(), re.MULTILINE)
    rooms = [re.sub(r"\.py\b|/(?=`)", "", row).replace("/", ".") for row in rows]
    told = [set(re.findall(r"`([\w.]+)`", row)) for row in rooms]
    assert told == [{room for room in floor if _stands(room)} for floor in ast.literal_eval(drawn)]


def _stands(room: str) -> bool:
    path = ROOT / "carapace_cron" / room.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def test_the_house_page_names_files_that_are_there() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (DOCS / "house.md").read_text())
    places = (ROOT, ROOT / "carapace_cron")
    assert named
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_performance_page_has_each_column() -> None:
    text = (ROOT / "bench" / "scheduler.py").read_text()
    columns = re.findall(r'^    \("\w+", "([^"]+)"\),$', text, re.MULTILINE)
    page = (DOCS / "performance.md").read_text()
    assert len(columns) > 5
    assert [column for column in columns if f"`{column}`" not in page] == []


CALLS_THE_PROGRAM = re.compile(r"(?<![\w/.-])carapace-cron (?:serve|tokens|copy-jobs|wrap)\b")


@pytest.mark.parametrize(
    "page",
    [page for page in (README, *DOCS.rglob("*.md")) if CALLS_THE_PROGRAM.search(page.read_text())],
    ids=lambda page: page.name,
)
def test_who_works_in_a_checkout_is_told_where_the_program_is(page: Path) -> None:
    assert ".venv/bin/carapace-cron" in page.read_text()


def test_each_scope_is_told() -> None:
    _, _, after = (DOCS / "reference" / "rpc.md").read_text().partition("\n## Who may do what\n")
    told, _, _ = after.partition("\n## ")
    assert [scope for scope in SCOPES if f"`{scope}`" not in told] == []


def test_the_readme_has_the_requests_that_the_first_start_prints() -> None:
    text = README.read_text()
    assert f"-d '{FIRST_JOB}'" in text
    assert f"-d '{MESSAGES}'" in text
