from __future__ import annotations

from datetime import UTC, datetime

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.errors import InvalidValue
from carapace_cron.model.job import HttpRequest
from carapace_cron.model.run import Outcome
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.ports.runner import Work
from carapace_cron.runners.http import HttpRunner
from carapace_cron.runners.registry import Runners
from carapace_cron.runners.shell import ShellRunner


class Plugins:
    """A third party's runner; it would also take what ours take."""

    kind = "queue"

    def claims(self, command: str) -> bool:
        return command.startswith(("queue:", "echo"))

    def check(self, command: str, http: HttpRequest | None) -> None:
        """It takes everything."""

    async def run(self, work: Work) -> Outcome:
        return Outcome("success")


@pytest.fixture
def runners(tmp_path) -> Runners:
    shell = ShellRunner((), work_dir=tmp_path, clock=ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    return Runners([HttpRunner(Outbound(AllowList())), shell, Plugins()])


@pytest.mark.parametrize(
    ("command", "kind"),
    [("https://example.com", "http"), ("echo hi", "shell"), ("date", "shell"), ("queue: x", "queue")],
)
def test_the_first_that_claims_does_it(command: str, kind: str, runners: Runners) -> None:
    assert runners.for_command(command).kind == kind


def test_it_knows_its_kinds(runners: Runners) -> None:
    assert runners.kinds() == ("http", "shell", "queue")


@pytest.mark.parametrize(
    "command", ["rm -rf /", "", "python x.py", "ftp://example.com", "agent: x", "\n", "\ud800"]
)
def test_an_unknown_kind_is_refused_with_an_example_of_each(command: str, runners: Runners) -> None:
    with pytest.raises(InvalidValue, match="unknown kind of command") as refusal:
        runners.check(command, None)
    assert refusal.value.field == "command"
    assert (
        "https://example.com/report, or one of echo, date, pwd, whoami, such as echo hello, or queue"
        in str(refusal.value)
    )


def test_http_settings_are_for_urls(runners: Runners) -> None:
    runners.check("https://example.com/", HttpRequest(method="POST"))
    with pytest.raises(InvalidValue, match="do not fit a command of kind shell") as refusal:
        runners.check("echo hi", HttpRequest())
    assert refusal.value.field == "http"
