"""What an operator can set. Reading it from files and the environment is the command line's work."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class AgentByUrl(BaseModel):
    """An agent that answers HTTP: each call is a POST of the command as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    headers: dict[str, SecretStr] = Field(default_factory=dict)  # sent as they are, shown nowhere
    timeout_seconds: float = Field(default=300, gt=0, le=86_400)  # for the whole call

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://host/path or https://host/path")
        return url


class GatewaySettings(BaseModel):
    """All of the gateway's own settings; each has a default that suits one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"  # any other address than loopback needs a plugin that identifies tokens
    port: int = Field(default=8787, ge=0, le=65_535)  # 0: any free port
    data_dir: Path = Path(".carapace")
    plugins_dir: Path | None = None  # a folder of plugin folders; None: entry points only
    allowed_hosts: tuple[str, ...] = ()  # further names in Host: "cron.example", "cron.example:8443"
    allowed_origins: tuple[str, ...] = ()  # further pages that may call: "https://console.example"
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For is believed: "127.0.0.1"
    agents: dict[str, AgentByUrl] = Field(default_factory=dict)
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)  # plugin id → its settings
    required_plugins: tuple[str, ...] = ()  # without these the gateway is up, but not ready

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                message = f'bad network "{network[:60]}": expected one such as 127.0.0.1 or 10.0.0.0/8'
                raise ValueError(message) from error
        return networks
