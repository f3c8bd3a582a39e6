"""The command ``carapace-cron``. Each subcommand is in a file of its own; this one only names them.

What a subcommand needs is imported where it is called: `wrap` stands in front of other people's jobs and
must be ready at once, and the gateway alone is a second of imports.
"""

from __future__ import annotations

from pathlib import Path

import click

from carapace_cron.errors import CarapaceError, InvalidValue

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="carapace-cron", prog_name="carapace-cron")
def cli() -> None:
    """The clock and the watchman of an AI-agent gateway."""


@cli.command("serve")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless set.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 8787 unless set.")
@click.option("--data-dir", type=_PATH, help="Folder for its files; .carapace unless set.")
@click.option("--config", type=_PATH, help="Settings file; ./carapace.toml unless set.")
def serve_command(host: str | None, port: int | None, data_dir: Path | None, config: Path | None) -> None:
    """Start the reference gateway with the extension."""
    import asyncio
    import logging

    from carapace_cron.cli.serve import run
    from carapace_cron.cli.settings import load_settings

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
    import asyncio
    import json

    from carapace_cron.cli.copy_jobs import run
    from carapace_cron.cli.settings import load_settings

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


@cli.group("tokens")
def tokens_group() -> None:
    """Make, list and revoke the tokens of a running gateway.

    CARAPACE_CRON_URL says where it is (http://127.0.0.1:8787 unless set), CARAPACE_CRON_TOKEN is the token of
    an admin.
    """


@tokens_group.command("create")
@click.option(
    "--scope", "scopes", multiple=True, required=True,
    help="What it may: jobs:read, jobs:write, monitors, monitors:read, ping, host, admin. Repeat for more.",
)
@click.option("--user", help="Whose it is; your own unless set.")
@click.option("--tenant", help="Of which tenant; your own unless set.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with its id.")
def create_token_command(
    scopes: tuple[str, ...], user: str | None, tenant: str | None, as_json: bool
) -> None:
    """Make a token and print it, alone, on stdout. It is shown this once."""
    from carapace_cron.cli import tokens
    from carapace_cron.cli.remote import RemoteGateway

    tokens.create(RemoteGateway.from_environment(), scopes, tenant=tenant, user=user, as_json=as_json)


@tokens_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_tokens_command(as_json: bool) -> None:
    """List the tokens in force, without the secrets."""
    from carapace_cron.cli import tokens
    from carapace_cron.cli.remote import RemoteGateway

    tokens.show_all(RemoteGateway.from_environment(), as_json=as_json)


@tokens_group.command("revoke")
@click.argument("token_id", metavar="ID")
def revoke_token_command(token_id: str) -> None:
    """Revoke the token with this ID, tok_…, from the next request on."""
    from carapace_cron.cli import tokens
    from carapace_cron.cli.remote import RemoteGateway

    tokens.revoke(RemoteGateway.from_environment(), token_id)


@cli.command("wrap", context_settings={"allow_interspersed_args": False})
@click.option("--monitor", required=True, metavar="URL", help="The monitor's ping URL.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, metavar="SECONDS",
    help="How long telling the monitor of the end may take, all tries together.",
)
@click.option(
    "--tail", type=click.IntRange(0, 10_000_000), default=10_000, show_default=True, metavar="BYTES",
    help="How much of the end of the output the monitor gets; with 0 the output does not come through here.",
)
@click.option("--rid", metavar="UUID", help="The run id in the pings; a new one unless set.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def wrap_command(monitor: str, timeout: float, tail: int, rid: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND and tell a monitor how it went.

    The monitor hears that the command has started, its exit status and the end of its output. Put -- before
    the command. Its input, output, signals and exit status are as without this, also while the monitor cannot
    be reached. There is no shell.
    """
    from carapace_cron.cli.url import check_url
    from carapace_cron.cli.wrap import run, run_id

    try:
        check_url(monitor, "--monitor")
        rid = run_id(rid)
    except InvalidValue as error:
        raise click.UsageError(str(error)) from error
    raise SystemExit(run(command, monitor, rid, tail_bytes=tail, timeout_seconds=timeout))


def main() -> None:
    """Run a command; an error of ours is one sentence and exit status 1, not a traceback."""
    try:
        cli()
    except CarapaceError as error:
        click.echo(f"carapace-cron: {error}", err=True)
        raise SystemExit(1) from error
