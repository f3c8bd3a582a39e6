"""What a plugin can add to the cron extension. See ``docs/howto/write-a-plugin.md`` for each with an example.

Hooks of the gateway itself (agents, methods, routes) are in `carapace_cron.gateway.hookspecs`; both sets
live in one plugin manager, so a plugin needs one marker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pluggy

from carapace_cron.ports.channel import Channel
from carapace_cron.ports.object_store import ObjectStore
from carapace_cron.ports.runner import Runner

PROJECT = "carapace"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

ChannelFactory = Callable[[str, Mapping[str, Any]], Channel]
"""(channel id, its settings as configured) → the channel; raises ConfigurationError with a sentence."""

StoreFactory = Callable[[str], Awaitable[ObjectStore]]
"""The whole address (``s3://bucket/prefix``) → the store, ready for use; raises ConfigurationError."""


class CronHooks:
    """Signatures only; a plugin implements those it wants, marked with `hookimpl`."""

    @hookspec
    def register_runners(self) -> Sequence[Runner]:  # type: ignore[empty-body]  # a pluggy spec has no body
        """Runners for kinds of commands. Asked in the order of registration; the first that claims, runs."""

    @hookspec
    def register_channel_kinds(self) -> Mapping[str, ChannelFactory]:  # type: ignore[empty-body]  # as above
        """Kinds of channels by name, for ``[channels.<id>] kind = "<name>"`` in the settings."""

    @hookspec
    def register_stores(self) -> Mapping[str, StoreFactory]:  # type: ignore[empty-body]  # as above
        """Object stores by the scheme of their address, for ``JOB_STORE``."""
