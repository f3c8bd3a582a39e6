"""The extension as a plugin: what a host loads, starts and stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from carapace_cron.api.methods import cron_methods
from carapace_cron.clock import Clock, SystemClock
from carapace_cron.errors import ConfigurationError, Unavailable
from carapace_cron.gateway.hookspecs import Method, Route
from carapace_cron.gateway.methods import method_of
from carapace_cron.hookspecs import CronHooks, hookimpl
from carapace_cron.house import House
from carapace_cron.model.actor import Actor
from carapace_cron.model.record import explain
from carapace_cron.ports.host import Host
from carapace_cron.settings import CronSettings

PLUGIN_ID = "carapace-cron"


class CronPlugin:
    """What a host loads by ``plugin.toml``. Between `start` and `stop` there is a house, else none.

    `new_admin_token`: the token that this start made because nobody could administer the gateway; it is
    kept nowhere else, so whoever starts the host shows it once.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._house: House | None = None
        self.new_admin_token: str | None = None

    @hookimpl
    def register_hookspecs(self) -> Sequence[type]:
        return [CronHooks]

    @hookimpl
    async def start(self, host: Host) -> None:
        house = House(host, _settings_of(host), self._clock)
        try:
            self.new_admin_token = await house.open()
        except BaseException:
            await house.close()
            raise
        self._house = house

    @hookimpl
    async def stop(self) -> None:
        if self._house is not None:
            house, self._house = self._house, None
            await house.close()

    @hookimpl
    def register_methods(self) -> Mapping[str, Method]:
        if self._house is None:
            return {}
        return {name: method_of(function) for name, function in cron_methods(self._house).items()}

    @hookimpl
    def register_routes(self) -> Sequence[Route]:
        return [] if self._house is None else self._house.routes()

    @hookimpl
    async def identify(self, token: str) -> Actor | None:
        if self._house is None:
            raise Unavailable("the extension is not started")
        return await self._house.token_store.find(token)

    @hookimpl
    def ready(self) -> str | None:
        return "it is not started" if self._house is None else self._house.why_not_ready()


def _settings_of(host: Host) -> CronSettings:
    try:
        return CronSettings.model_validate(dict(host.settings_of(PLUGIN_ID)))
    except ValidationError as error:
        raise ConfigurationError(f"in the settings of {PLUGIN_ID}: {explain(error)}") from error
