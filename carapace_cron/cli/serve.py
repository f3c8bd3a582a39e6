"""Run the reference gateway with the extension until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import shlex
import signal
from importlib.metadata import version

import click

from carapace_cron import failpoints
from carapace_cron.cli.settings import Settings, unknown_variables
from carapace_cron.clock import SystemClock
from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.gateway import Gateway
from carapace_cron.gateway.server import GatewayServer, serve
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.plugin import PLUGIN_ID

log = logging.getLogger(__name__)

START_SECONDS = 600.0  # a bucket with a hundred thousand jobs and no snapshot takes minutes
STOP_MARGIN_SECONDS = 15.0  # beyond the grace: for the last records and deliveries

FIRST_JOB = (
    '{"jsonrpc": "2.0", "id": 1, "method": "carapace.cron.create", "params": {"data": {"name": "First job", '
    '"cronExpression": "* * * * *", "command": "echo \\"Job executed\\"", "channelId": "gateway", '
    '"timezone": "America/New_York"}}}'
)
MESSAGES = '{"jsonrpc": "2.0", "id": 2, "method": "carapace.gateway.messages", "params": {"limit": 5}}'


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; a second one ends the process at once. Raises `ConfigurationError`."""
    if settings.plugins_dir is not None and not settings.plugins_dir.is_dir():
        raise ConfigurationError(f"plugins_dir {settings.plugins_dir} is no folder")
    for sentence in unknown_variables():
        log.warning(sentence, extra={"action": "settings"})
    if (point := failpoints.armed()) is not None:
        log.warning("this process is to kill itself at %s", point, extra={"action": "failpoint"})
    stop = _stop_on_signals()
    clock = SystemClock()
    outbound = Outbound(AllowList.parse(settings.url_allow))
    try:
        gateway = Gateway(
            settings.for_gateway(),
            outbound=outbound,
            clock=clock,
            main_plugin=PLUGIN_ID,
            start_seconds=START_SECONDS,
            stop_seconds=settings.shutdown_grace_seconds + STOP_MARGIN_SECONDS,
        )
        server = await serve(gateway, clock=clock)
        try:
            settle_memory()
            _announce(server, settings)
            await stop.wait()
            click.echo("stopping: what runs may end, up to the grace; press again to stop at once", err=True)
        finally:
            await server.stop()
    finally:
        await outbound.close()


def settle_memory() -> None:
    """Take what the start made out of the garbage collector's sight.

    It lives until the end, and looking at it again and again stops everything for 60 ms at a time.
    """
    gc.collect()
    gc.freeze()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        stop.set()
        # The next one meets the default action: somebody who asks twice means at once.
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return stop


def _announce(server: GatewayServer, settings: Settings) -> None:
    """What a person needs: the address, at the first start the token, and something to paste."""
    click.echo(f"carapace_cron {version('carapace-cron')}")
    click.echo(f"  address      {server.url}")
    click.echo(f"  data         {settings.data_dir.resolve()}")
    click.echo(f"  jobs in      {settings.job_store}")
    for record in server.gateway.plugins():
        detail = "" if record.error is None else f": {record.error.splitlines()[0]}"
        click.echo(f"  plugin       {record.id} {record.version} {record.status}{detail}")
    if (reason := server.gateway.why_not_ready()) is not None:
        click.echo(f"  NOT READY    {reason}")
    plugin = server.gateway.plugin_manager.get_plugin(PLUGIN_ID)
    token = getattr(plugin, "new_admin_token", None)
    if token is not None:
        _announce_first(server.url, token)
    click.echo("Ctrl-C stops it.")


def _announce_first(url: str, token: str) -> None:
    click.echo(f"\n  admin token  {token}\n  It is shown this once; keep it.")
    click.echo("\n  To make a job that runs each minute:\n")
    click.echo(_request(url, token, FIRST_JOB))
    click.echo("\n  A minute later, to read what it said:\n")
    click.echo(_request(url, token, MESSAGES) + "\n")


def _request(url: str, token: str, body: str) -> str:
    return (
        f"curl -s {url}/rpc -H 'Content-Type: application/json' \\\n"
        f"  -H 'Authorization: Bearer {token}' \\\n"
        f"  -d {shlex.quote(body)}"
    )
