"""The command ``carapace-cron``. Each subcommand is in a file of its own; this one only names them."""

from __future__ import annotations

import asyncio
import json
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
    for library in ("alembic", "aiobotocore"):
        logging.getLogger(library).setLevel(logging.WARNING)  # their routine is no news
    asyncio.run(run(settings))


@cli.command("copy-jobs")
@click.argument("source")
@click.argument("target")
@click.option("--data-dir", type=_PATH, help="What sqlite: means; .carapace unless set.")
@click.option("--config", type=_PATH, help="Settings file; ./carapace.toml unless set.")
@click.option("--overwrite", is_flag=True, help="Replace jobs of the target that differ; else they are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def copy_jobs_command(
    source: str, target: str, data_dir: Path | None, config: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Copy jobs from SOURCE to TARGET while no gateway uses them: sqlite:, sqlite:<folder> or s3://…

    The jobs, not what became of their runs: those are in the ledger.
    """
    from carapace_cron.cli.copy_jobs import run

    settings = load_settings(config, data_dir=data_dir)
    endpoint = settings.s3_endpoint_url or None
    report = asyncio.run(
        run(source, target, data_dir=settings.data_dir, endpoint=endpoint, overwrite=overwrite)
    )
    if as_json:
        click.echo(json.dumps({"copied": report.copied, "same": report.same, "kept": list(report.kept)}))
        return
    kept = f"{len(report.kept)} kept as they were"
    click.echo(f"{report.copied} copied, {report.same} were there already, {kept}")
    for key in report.kept:
        click.echo(f"  kept {key}")


def main() -> None:
    """Run a command; an error of ours is one sentence and exit status 1, not a traceback."""
    try:
        cli()
    except CarapaceError as error:
        click.echo(f"carapace-cron: {error}", err=True)
        raise SystemExit(1) from error
