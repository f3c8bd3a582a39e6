"""Copy the kept jobs from one store to another, one to one: into a bucket, out of it, or as a backup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from carapace_cron.clock import SystemClock
from carapace_cron.data_dir import DataDir
from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.errors import ConfigurationError
from carapace_cron.job_document import PREFIX
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.objects.copy import CopyReport, copy_objects
from carapace_cron.objects.database import DatabaseObjects
from carapace_cron.ports.object_store import ObjectStore

SHOW_EVERY = 100  # objects


async def run(
    source: str, target: str, *, data_dir: Path, endpoint: str | None, overwrite: bool
) -> CopyReport:
    """Copy from address to address. Raises `ConfigurationError`, also while a gateway uses `data_dir`."""
    if source == target:
        raise ConfigurationError(f"source and target are the same: {source}")
    if source.startswith("sqlite:") and not _folder(source, data_dir).database.exists():
        folder = _folder(source, data_dir).path
        raise ConfigurationError(f"there are no jobs in {folder}: expected a gateway's data directory")
    async with _opened(source, data_dir, endpoint) as from_, _opened(target, data_dir, endpoint) as to:
        return await copy_objects(from_, to, PREFIX, overwrite=overwrite, progress=_show)


@asynccontextmanager
async def _opened(address: str, data_dir: Path, endpoint: str | None) -> AsyncIterator[ObjectStore]:
    if address.startswith("s3://"):
        from carapace_cron.objects.s3 import S3Objects  # 60 MB of libraries, only where they are needed

        bucket = await S3Objects.open(address, endpoint_url=endpoint)
        try:
            yield bucket
        finally:
            await bucket.close()
    elif address.startswith("sqlite:"):
        folder = _folder(address, data_dir)
        folder.claim()
        database = Database(sqlite_engine(folder.database), upgrade)
        try:
            await database.open()
            yield DatabaseObjects(database, SystemClock())
        finally:
            await database.close()
            folder.release()
    else:
        raise ConfigurationError(f'unknown store "{address}": expected sqlite:, sqlite:<folder> or s3://…')


def _folder(address: str, data_dir: Path) -> DataDir:
    return DataDir(Path(address.removeprefix("sqlite:") or data_dir))


def _show(done: int, key: str) -> None:
    if done % SHOW_EVERY == 0:
        click.echo(f"{done} objects so far, the last was {key}", err=True)
