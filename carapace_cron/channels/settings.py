"""Reading a channel's own settings: references to secrets filled in, faults told without their values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel, to_snake

from carapace_cron.errors import ConfigurationError
from carapace_cron.model.record import Record

SECRET_PREFIX = "CARAPACE_CRON_SECRET_"  # noqa: S105  # the prefix of a variable's name, no secret
_REFERENCE = re.compile(r"\$\{(secret|env):([A-Za-z_][A-Za-z0-9_]*)\}")


class KindSettings(Record):
    """The base of what a kind of channel understands. Snake case in TOML, camelCase as well."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


S = TypeVar("S", bound=KindSettings)


def read_settings(
    of_kind: type[S],
    channel_id: str,
    given: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> S:
    """`given` as `of_kind`, references filled in.

    ``${secret:NAME}`` is the environment variable ``CARAPACE_CRON_SECRET_NAME``, ``${env:NAME}`` the
    variable ``NAME``. Raises `ConfigurationError` naming the channel and the field, never the value.
    """
    filled = {name: _filled(value, channel_id, name, environment) for name, value in given.items()}
    try:
        return of_kind.model_validate(filled)
    except ValidationError as error:
        raise ConfigurationError(_first_fault(error, channel_id)) from None


def _filled(value: Any, channel_id: str, field: str, environment: Mapping[str, str]) -> Any:
    """`value` with the references in it, and in what it holds, replaced."""
    if isinstance(value, Mapping):
        return {name: _filled(inner, channel_id, field, environment) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, channel_id, field, environment) for inner in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[2] if match[1] == "env" else SECRET_PREFIX + match[2]
        if not environment.get(name):
            where = f"[channels.{channel_id}] {field}"
            raise ConfigurationError(f"{match[0]} in {where} is empty: set the environment variable {name}")
        return environment[name]

    return _REFERENCE.sub(variable, value)


def _first_fault(error: ValidationError, channel_id: str) -> str:
    """One sentence without the input, which may be a secret, and without pydantic's frames around it."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(to_snake(str(part)) for part in first["loc"]) or "settings"
    reason = first["msg"].removeprefix("Value error, ")
    where = f"[channels.{channel_id}]"
    if first["type"] == "missing":
        return f"missing {field} in {where}"
    if first["type"] == "extra_forbidden":
        return f"unknown setting {field} in {where}"
    return f"bad {field} in {where}: {reason[:1].lower()}{reason[1:]}"
