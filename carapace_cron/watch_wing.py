"""The wing of the house in which monitors live: put together here, opened and closed with the rest."""

from __future__ import annotations

from carapace_cron.clock import Clock
from carapace_cron.database import Database
from carapace_cron.ledger.pings import PingBook
from carapace_cron.ledger.watch_history import WatchHistory
from carapace_cron.ledger.watchlist import Watchlist
from carapace_cron.services.monitors import ChannelRules, MonitorDesk


class WatchWing:
    """`pings` takes what doors hear; `monitors` are the use cases."""

    def __init__(
        self, database: Database, clock: Clock, *, channels: ChannelRules, max_monitors_per_tenant: int
    ) -> None:
        self.pings = PingBook(database, lambda connection, one, after: one)
        self.monitors = MonitorDesk(
            Watchlist(database),
            WatchHistory(database),
            clock,
            channels=channels,
            max_monitors_per_tenant=max_monitors_per_tenant,
            wake=lambda: None,
        )
