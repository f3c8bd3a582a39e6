"""The examples of docs/reference/commands.md, done for real."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.errors import InvalidValue
from carapace_cron.model.program import ProgramRule
from carapace_cron.runners.registry import Runners
from carapace_cron.runners.shell import ShellRunner

PAGE = (Path(__file__).parents[2] / "docs/reference/commands.md").read_text()
EXAMPLES = [tuple(re.split(r" +-> ", line, maxsplit=1)) for line in PAGE.splitlines() if " -> " in line]


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize(("command", "answer"), EXAMPLES)
async def test_it_answers_as_the_page_says(command: str, answer: str, tmp_path: Path, work) -> None:
    shell = ShellRunner((), work_dir=tmp_path, clock=ManualClock(datetime(2026, 1, 5, 9, 7, 3, tzinfo=UTC)))
    if answer == "refused":
        with pytest.raises(InvalidValue):
            Runners([shell]).check(command, None)
    else:
        assert (await shell.run(work(command))).output == answer


def test_the_pages_program_is_a_rule() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (given,) = tomllib.loads(block)["programs"]
    rule = ProgramRule.model_validate(given)
    assert rule.takes(("nightly", "--full", "--quiet")) and not rule.takes(("nightly", "--all"))
