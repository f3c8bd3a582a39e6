"""Gateways that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from carapace_cron.gateway.testing import House, running_gateway

OpenHouse = Callable[..., Awaitable[House]]


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """``await open_house(plugins=…, limits=…, settings=…)``, with the arguments of `running_gateway`."""
    async with aiohttp.ClientSession() as client, AsyncExitStack() as stack:

        async def start(**options: Any) -> House:
            return await stack.enter_async_context(running_gateway(tmp_path / "data", client, **options))

        yield start


@pytest.fixture
async def house(open_house: OpenHouse) -> House:
    """A gateway with nothing but people."""
    return await open_house()
