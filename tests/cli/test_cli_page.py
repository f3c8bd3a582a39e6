"""docs/reference/cli.md shows the help of every command as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from carapace_cron.cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()
WIDTH = 88  # of the terminal on the page: the list of commands is cut to it
SHOWN = dict(re.findall(r"```text\n\$ carapace-cron (.*?)--help\n(.*?)```", PAGE, re.DOTALL))


def commands(group: click.Group, words: str = "") -> Iterator[str]:
    """``""``, ``"tokens "``, ``"tokens create "``, …"""
    yield words
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{words}{name} ")
        else:
            yield f"{words}{name} "


def test_every_command_is_on_the_page() -> None:
    assert set(SHOWN) == set(commands(cli))


@pytest.mark.parametrize("words", SHOWN)
def test_its_help_is_as_shown(words: str) -> None:
    asked = [*words.split(), "--help"]
    told = CliRunner().invoke(cli, asked, prog_name="carapace-cron", terminal_width=WIDTH).output
    assert told.split() == SHOWN[words].split(), "apart from where the lines break"
