"""The folder that a gateway keeps its files in: private to its user, and used by one gateway at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from carapace_cron.errors import ConfigurationError

DATABASE_FILE = "carapace.sqlite"
LOCK_FILE = "gateway.lock"


class DataDir:
    """`claim` makes the folder and locks it; the lock ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: sqlite3.Connection | None = None

    @property
    def database(self) -> Path:
        return self.path / DATABASE_FILE

    def claim(self) -> None:
        """Raises `ConfigurationError` when the folder cannot be used or another gateway has it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.database.touch(mode=0o600)
            # An exclusive transaction on an empty database is a lock on every system that SQLite knows,
            # and unlike a file with a process id it cannot be left behind.
            self._lock = sqlite3.connect(self.path / LOCK_FILE, isolation_level=None, timeout=0)
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            self.release()
            raise self._unlockable(error) from error
        except OSError as error:
            raise ConfigurationError(
                f"the data directory {self.path} cannot be used: {error.strerror}; "
                "expected a folder that this user may write to (CARAPACE_CRON_DATA_DIR)"
            ) from error

    def _unlockable(self, error: sqlite3.DatabaseError) -> ConfigurationError:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return ConfigurationError(
                f"the data directory {self.path} is in use by another gateway: stop that one, or give this "
                "one its own (CARAPACE_CRON_DATA_DIR)"
            )
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            return ConfigurationError(
                f"{self.path / LOCK_FILE} cannot be locked: {error}; it holds nothing of worth: remove it"
            )
        return ConfigurationError(
            f"the data directory {self.path} cannot be locked: {error}; expected a disk with room, on which "
            "this user may write and lock files (CARAPACE_CRON_DATA_DIR)"
        )

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
