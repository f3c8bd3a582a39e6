"""healthchecks-wrapper 0.1.6 from PyPI, sync and async."""

import asyncio
import sys

from healthchecks_wrapper import HealthCheck

(ADDRESS,) = sys.argv[1:]


async def copy_async():
    async with HealthCheck(ADDRESS):
        pass


with HealthCheck(ADDRESS):
    pass
with HealthCheck(ADDRESS, suppress_exceptions=True):
    raise ValueError("no space left")
asyncio.run(copy_async())
