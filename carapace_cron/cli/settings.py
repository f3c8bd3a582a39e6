"""Settings of the whole program: flags, then ``CARAPACE_CRON_…``, then ``carapace.toml``, then defaults."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from carapace_cron import failpoints
from carapace_cron.channels.settings import SECRET_PREFIX
from carapace_cron.cli.remote import TOKEN_VARIABLE, URL_VARIABLE
from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.model.record import expectation
from carapace_cron.plugin import PLUGIN_ID
from carapace_cron.settings import CronSettings

PREFIX = "CARAPACE_CRON_"
CONFIG_FILE = "carapace.toml"

# Lists and tables as the environment has them, for whoever wrote one that is no JSON.
EXAMPLES = MappingProxyType(
    {
        "agents": '{"report": {"url": "https://agents.example/report"}}',
        "allowed_hosts": '["cron.example"]',
        "allowed_origins": '["https://console.example"]',
        "channels": '{"ops": {"kind": "webhook", "url": "https://ops.example/"}}',
        "concurrency": '{"channel:ops": 2, "tag:db": 1}',
        "plugins": '{"hello": {"enabled": false}}',
        "programs": '[{"name": "dump", "path": "/opt/dump"}]',
        "required_plugins": '["hello"]',
        "trusted_proxies": '["127.0.0.1"]',
    }
)
_OF_OTHERS = (failpoints.VARIABLE, URL_VARIABLE, TOKEN_VARIABLE)  # read elsewhere


class Settings(BaseSettings, GatewaySettings, CronSettings):
    """All names of both, flat: ``CARAPACE_CRON_PORT``, ``CARAPACE_CRON_JOB_STORE``, …"""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), TomlConfigSettingsSource(settings_cls)

    def for_gateway(self) -> GatewaySettings:
        """The gateway's part, with the extension's as its plugin settings."""
        own = {name: getattr(self, name) for name in GatewaySettings.model_fields}
        cron = self.model_dump(include=set(CronSettings.model_fields), exclude_unset=True)
        own["plugins"] = {**self.plugins, PLUGIN_ID: {**self.plugins.get(PLUGIN_ID, {}), **_plain(cron)}}
        own["required_plugins"] = (PLUGIN_ID, *self.required_plugins)
        return GatewaySettings(**own)


class _Environment(EnvSettingsSource):
    """``CARAPACE_CRON_…``; says which variable is no JSON, and what would be."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError as error:
            variable = f"{PREFIX}{field_name.upper()}"
            expected = f"expected JSON, such as {variable}='{EXAMPLES[field_name]}'"
            raise ConfigurationError(f"bad setting {field_name} ({variable}): {expected}") from error


def load_settings(config: Path | None, **flags: Any) -> Settings:
    """Raises `ConfigurationError` in one sentence: which setting, what was given, what would do.

    `config`: the TOML file; None = ``carapace.toml`` in the current folder, if there is one. Flags that
    are None were not given.
    """
    if config is not None and not config.is_file():
        raise ConfigurationError(f"there is no settings file {config}")

    file = config or Path(CONFIG_FILE)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return FromFile(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"the settings file {file} cannot be read: {error}") from error
    except (SettingsError, ValueError) as error:
        raise ConfigurationError(f"the settings cannot be read: {error}") from error


def unknown_variables() -> list[str]:
    """A sentence for each ``CARAPACE_CRON_…`` variable that nothing reads: most are slips of the pen."""
    known = {name.upper() for name in Settings.model_fields}
    sentences = []
    for name in sorted(os.environ):
        short = name.removeprefix(PREFIX)
        is_other = name in _OF_OTHERS or name.startswith(SECRET_PREFIX)
        if name.startswith(PREFIX) and short not in known and not is_other:
            near = difflib.get_close_matches(short, known, n=1)
            meant = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            sentences.append(f"{name} is not a setting{meant}")
    return sentences


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
        return f"unknown setting {name}" + (f": did you mean {near[0]}?" if near else "")
    return f"bad setting {name} ({PREFIX}{str(first['loc'][0]).upper()}): {expectation(first)}"


def _plain(value: Any) -> Any:
    """As TOML would give it: secrets as texts, tuples as lists."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
