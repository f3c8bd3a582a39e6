"""The HTTP addresses of the extension besides ``/rpc``, door by door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from carapace_cron.api.badges import BadgeDoor
from carapace_cron.api.checks import ChannelList, CheckDoor
from carapace_cron.api.monitor_methods import monitor_methods
from carapace_cron.api.monitor_routes import MONITOR_CALLS
from carapace_cron.api.pings import PingDoor
from carapace_cron.api.rest import rest_routes
from carapace_cron.clock import Clock
from carapace_cron.gateway.credentials import Identify
from carapace_cron.gateway.hookspecs import Route
from carapace_cron.monitors.ping_book import PingBook
from carapace_cron.services.badges import BadgeDesk
from carapace_cron.services.monitors import MonitorDesk


class Watch(Protocol):
    """What the doors of monitors need."""

    @property
    def pings(self) -> PingBook: ...

    @property
    def monitors(self) -> MonitorDesk: ...

    @property
    def badges(self) -> BadgeDesk: ...


def cron_routes(watch: Watch, channels: ChannelList, clock: Clock, identify: Identify) -> Sequence[Route]:
    """`identify`: whose a token is, where a route itself finds the token."""
    return [
        *PingDoor(watch.pings, watch.monitors, channels, clock, identify).routes(),
        *CheckDoor(watch.monitors, watch.badges, channels, identify).routes(),
        *BadgeDoor(watch.badges).routes(),
        *rest_routes(MONITOR_CALLS, monitor_methods(watch)),
    ]
