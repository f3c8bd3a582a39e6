"""How many connections there may be, and whether there are descriptors for them."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from carapace_cron.gateway.doorkeeper import OTHER_FILES, make_room_for, why_refused
from carapace_cron.gateway.limits import Limits

LIMITS = Limits(connections=10, connections_per_address=3)


@pytest.mark.parametrize(
    ("address", "connected", "refused"),
    [
        ("192.0.2.1", [], False),
        ("192.0.2.1", ["192.0.2.1"] * 2, False),
        ("192.0.2.1", ["192.0.2.1"] * 3, True),
        ("192.0.2.1", ["192.0.2.2"] * 9, False),
        ("192.0.2.1", ["192.0.2.2"] * 10, True),
        ("127.0.0.1", ["127.0.0.1"] * 9, False),
        ("127.0.0.1", ["127.0.0.1"] * 10, True),
        ("::1", ["::1"] * 5, False),
        ("2001:db8::1", ["2001:db8::1"] * 3, True),
        ("fe80::1%eth0", ["fe80::1%eth0"] * 3, True),
    ],
)
def test_it_refuses_one_too_many(address: str, connected: list[str], refused: bool) -> None:
    assert (why_refused(address, connected, LIMITS) is not None) is refused


@pytest.fixture
def _limit_restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_limit_restored")
def test_it_raises_the_limit_of_open_files_when_it_may() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    make_room_for(200)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200 + OTHER_FILES


@pytest.mark.usefixtures("_limit_restored")
def test_it_leaves_a_limit_that_is_enough() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    make_room_for(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_it_says_when_there_are_too_few(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 512))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    make_room_for(1_000)
    assert asked == [(512, 512)]
    assert "only 512 files may be open: expected at least 1256" in caplog.text
