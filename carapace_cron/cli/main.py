"""The command ``carapace-cron``. Each subcommand is in a file of its own; this one only names them."""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from pathlib import Path

import click

from carapace_cron.cli.settings import load_settings
from carapace_cron.errors import CarapaceError

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("carapace-cron"), prog_name="carapace-cron")
def cli() -> None:
    """The clock and the watchman of an AI-agent gateway."""


@cli.command("serve")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless set.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 8787 unless set.")
@click.option("--data-dir", type=_PATH, help="Folder for its files; .carapace unless set.")
@click.option("--config", type=_PATH, help="Settings file; ./carapace.toml unless set.")
def serve_command(host: str | None, port: int | None, data_dir: Path | None, config: Path | None) -> None:
    """Start the reference gateway with the extension."""
    from carapace_cron.cli.serve import run

    settings = load_settings(config, host=host, port=port, data_dir=data_dir)
    logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new file's schema is no news
    asyncio.run(run(settings))


def main() -> None:
    """Run a command; an error of ours is one sentence and exit status 1, not a traceback."""
    try:
        cli()
    except CarapaceError as error:
        click.echo(f"carapace-cron: {error}", err=True)
        raise SystemExit(1) from error
