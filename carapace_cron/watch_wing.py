"""The wing of the house in which monitors live: put together here, opened and closed with the rest."""

from __future__ import annotations

import asyncio

from carapace_cron.clock import Clock
from carapace_cron.database import Database
from carapace_cron.ledger.badges import BadgeKeys
from carapace_cron.ledger.pings import Pings
from carapace_cron.ledger.settling import Settled
from carapace_cron.ledger.watch_history import WatchHistory
from carapace_cron.ledger.watchlist import Watchlist
from carapace_cron.metrics import Metrics
from carapace_cron.monitors.ping_book import PingBook
from carapace_cron.monitors.watchman import Watchman
from carapace_cron.ports.channel import ChannelRules
from carapace_cron.services.badges import BadgeDesk
from carapace_cron.services.monitors import MonitorDesk


class WatchWing:
    """`pings` takes what doors hear; `monitors` are the use cases; the watchman notices what did not come."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        channels: ChannelRules,
        max_monitors_per_tenant: int,
        notices_wait: asyncio.Event,
        metrics: Metrics,
    ) -> None:
        """`notices_wait` wakes the courier."""
        self.watchlist = watchlist = Watchlist(database, self.note)
        self._notices_wait = notices_wait
        self.watchman = Watchman(watchlist, clock)
        self.pings = PingBook(Pings(database, self.note), metrics)
        self.badges = BadgeDesk(BadgeKeys(database), watchlist, clock)
        self.monitors = MonitorDesk(
            watchlist,
            WatchHistory(database),
            clock,
            channels=channels,
            max_monitors_per_tenant=max_monitors_per_tenant,
        )

    def note(self, settled: Settled) -> None:
        """Something became of monitors."""
        self.watchman.note(settled.look_at)
        if settled.told:
            self._notices_wait.set()
