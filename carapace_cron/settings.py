"""What an operator can set for the extension; ``docs/reference/settings.md`` has each with its reason."""

from __future__ import annotations

import re
from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from carapace_cron.model.channel import ChannelSettings
from carapace_cron.model.limits import Limits
from carapace_cron.model.program import ProgramRule

MIN_TOKEN_LENGTH = 16
_POSTGRESQL = re.compile(r"postgres(ql)?://.")


class CronSettings(BaseModel):
    """Checked at start; an unknown name or a bad value is a `ConfigurationError` that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    admin_token: SecretStr = SecretStr("")  # empty: the first start makes one and prints it
    ledger: SecretStr = SecretStr("sqlite:")  # or postgresql://user:password@host/database
    job_store: str = "sqlite:"  # in the ledger's file; postgresql: in its database; or s3://bucket/prefix
    s3_endpoint_url: str = ""  # empty: AWS
    adopt_bucket: bool = False  # run the jobs of a bucket that another ledger has run before
    max_concurrent_runs: int = Field(5, ge=1, le=10_000)
    max_concurrent_runs_per_tenant: int = Field(0, ge=0, le=10_000)  # 0: no limit of its own
    concurrency: dict[str, int] = Field(default_factory=dict)  # {"channel:ops": 2, "tag:db": 1}
    catch_up_per_second: float = Field(10.0, ge=0.01, le=1_000)
    url_allow: str = ""  # networks and ports that jobs may call besides public ones
    min_interval_seconds: float = Field(60.0, ge=1)
    max_jobs_per_tenant: int = Field(10_000, ge=1)
    max_monitors_per_tenant: int = Field(10_000, ge=1)
    keep_runs_days: float = Field(30.0, gt=0)
    keep_events_days: float = Field(365.0, gt=0)
    shutdown_grace_seconds: float = Field(10.0, ge=0, le=600)
    channels: dict[str, ChannelSettings] = Field(default_factory=dict)
    programs: tuple[ProgramRule, ...] = ()  # what the shell runner may run besides echo, date, pwd, whoami

    @field_validator("admin_token")
    @classmethod
    def _hard_to_guess(cls, token: SecretStr) -> SecretStr:
        if 0 < len(token.get_secret_value()) < MIN_TOKEN_LENGTH:
            raise ValueError(f"expected at least {MIN_TOKEN_LENGTH} characters, or none at all")
        return token

    @field_validator("ledger")
    @classmethod
    def _sqlite_or_postgresql(cls, address: SecretStr) -> SecretStr:
        if address.get_secret_value() != "sqlite:" and not _POSTGRESQL.match(address.get_secret_value()):
            raise ValueError("expected sqlite: or postgresql://user:password@host:port/database")
        return address

    @field_validator("concurrency")
    @classmethod
    def _of_a_channel_or_tag(cls, concurrency: dict[str, int]) -> dict[str, int]:
        for label, most in concurrency.items():
            kind, _, name = label.partition(":")
            if kind not in ("channel", "tag") or not name or " " in name:
                raise ValueError(f'bad name "{label[:60]}": expected channel:<id> or tag:<tag>')
            if most < 1:
                raise ValueError(f'bad limit {most} of "{label[:60]}": expected at least 1')
        return concurrency

    @property
    def limits(self) -> Limits:
        return Limits(self.concurrency, self.max_concurrent_runs_per_tenant or None)

    @property
    def min_interval(self) -> timedelta:
        return timedelta(seconds=self.min_interval_seconds)

    @property
    def keep_runs(self) -> timedelta:
        return timedelta(days=self.keep_runs_days)

    @property
    def keep_events(self) -> timedelta:
        return timedelta(days=self.keep_events_days)

    @property
    def on_s3(self) -> bool:
        return self.job_store.startswith("s3://")
