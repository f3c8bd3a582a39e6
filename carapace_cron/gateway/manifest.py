"""``plugin.toml``: what a plugin is, which object to load, which settings it takes.

::

    id = "hello"
    name = "Hello"
    version = "1.0.0"
    description = "Says hello"
    entry = "hello.plugin:HelloPlugin"

    [settings.greeting]
    type = "string"
    default = "Hello"
    description = "The first word"

    [capabilities]
    agents = ["generate-report"]

Messages have four lines: what is wrong, where, in which file, what would do.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from carapace_cron.errors import ConfigurationError

FILE_NAME = "plugin.toml"
RESERVED_SETTINGS = frozenset({"enabled"})  # the gateway's own switch in each plugin's settings
_MAX_BYTES = 64 * 1024
_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"

SettingType = Literal["string", "integer", "number", "boolean", "array", "table"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]

_PYTHON_TYPES: dict[SettingType, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "table": (dict,),
}
_NUMBERS = ("integer", "number")


class Setting(BaseModel):
    """One setting of a plugin. Without a default the operator has to give it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    type: SettingType
    description: Text
    default: Any = None
    minimum: int | float | None = None  # of integer and number
    maximum: int | float | None = None
    choices: list[str | int | float] | None = None  # the only values allowed
    secret: bool = False  # never shown, in messages neither

    @property
    def is_required(self) -> bool:
        return "default" not in self.model_fields_set


class Manifest(BaseModel):
    """A plugin's own account of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)]
    name: Text
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+!-]*$", max_length=64)]
    description: Text
    entry: Annotated[str, StringConstraints(pattern=rf"^{_DOTTED}:{_DOTTED}$", max_length=200)]
    settings: dict[str, Setting] = Field(default_factory=dict)
    capabilities: dict[str, list[str]] = Field(default_factory=dict)  # for people: what it brings


def read_manifest(file: Path) -> Manifest:
    """The manifest in `file`. Raises `ConfigurationError` in four lines."""
    table = _read_toml(file)
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as error:
        raise _manifest_error(error, file) from error
    for name, setting in manifest.settings.items():
        _check_setting(name, setting, file)
    return manifest


def settings_for(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` checked against the manifest, with its defaults filled in. Raises `ConfigurationError`."""
    where = f"[plugins.{manifest.id}]"
    known = manifest.settings
    for name in given:
        if name not in known:
            what = f'unknown setting "{name}"'
            raise _four_lines(manifest.id, what, where, FILE_NAME, _nearest(name, known))
    return {name: _value_of(name, setting, given, manifest.id) for name, setting in known.items()}


def _value_of(name: str, setting: Setting, given: Mapping[str, Any], plugin_id: str) -> Any:
    where = f"[plugins.{plugin_id}]"
    if name not in given:
        if setting.is_required:
            remedy = f"{name} = … ({setting.type}: {setting.description})"
            raise _four_lines(plugin_id, f'missing setting "{name}"', where, FILE_NAME, remedy)
        return setting.default
    better = _unfit(setting, given[name])
    if better is not None:
        shown = "(secret)" if setting.secret else _shown(given[name])
        raise _four_lines(plugin_id, f"bad setting {name} = {shown}", where, FILE_NAME, better)
    return given[name]


def _unfit(setting: Setting, value: Any) -> str | None:
    """What would do instead of `value`; None when it does."""
    if not _is_of(setting.type, value):
        return f"expected {setting.type}"
    if setting.choices is not None and value not in setting.choices:
        return f"expected one of {', '.join(map(_shown, setting.choices))}"
    if setting.minimum is not None and value < setting.minimum:
        return f"expected at least {setting.minimum}"
    if setting.maximum is not None and value > setting.maximum:
        return f"expected at most {setting.maximum}"
    return None


def _is_of(kind: SettingType, value: Any) -> bool:
    if isinstance(value, bool):  # a bool is an int to Python, not to TOML
        return kind == "boolean"
    finite = not isinstance(value, float) or math.isfinite(value)
    return isinstance(value, _PYTHON_TYPES[kind]) and finite


def _check_setting(name: str, setting: Setting, file: Path) -> None:
    where = f"[settings.{name}]"
    if name in RESERVED_SETTINGS:
        raise _four_lines(None, f'setting "{name}" is the gateway\'s own', where, file, "another name")
    bounded = setting.minimum is not None or setting.maximum is not None
    if bounded and setting.type not in _NUMBERS:
        remedy = f"type {' or '.join(_NUMBERS)}, or no minimum and maximum"
        raise _four_lines(None, f"a {setting.type} with a minimum or maximum", where, file, remedy)
    better = None if setting.is_required else _unfit(setting, setting.default)
    if better is not None:
        what = f"its default {_shown(setting.default)} is not allowed by itself"
        raise _four_lines(None, what, where, file, better)


def _read_toml(file: Path) -> dict[str, Any]:
    where = "the whole file"
    try:
        text = file.read_bytes()
        if len(text) > _MAX_BYTES:
            raise _four_lines(None, f"{len(text)} bytes", where, file, f"at most {_MAX_BYTES} bytes")
        return tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        remedy = f"a readable {FILE_NAME} beside the plugin's __init__.py"
        raise _four_lines(None, error.strerror or "not readable", where, file, remedy) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _four_lines(None, f"not TOML: {error}", where, file, "see https://toml.io") from error


def _manifest_error(error: ValidationError, file: Path) -> ConfigurationError:
    faults = error.errors(include_url=False)
    # A misspelt key is also a missing one; its own name helps more.
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    path = [str(part) for part in first["loc"]]
    where = f"[{'.'.join(path[:-1])}]" if len(path) > 1 else "the top of the file"
    name = path[-1]
    if first["type"] == "extra_forbidden":
        fields = Setting.model_fields if path[0] == "settings" else Manifest.model_fields
        return _four_lines(None, f'unknown key "{name}"', where, file, _nearest(name, fields))
    if first["type"] == "missing":
        return _four_lines(None, f'missing key "{name}"', where, file, f'{name} = "…"')
    shown = _shown(first["input"])
    remedy = _REMEDIES.get(name) or first["msg"][:1].lower() + first["msg"][1:]
    return _four_lines(None, f"bad value {name} = {shown}", where, file, remedy)


_REMEDIES = {
    "id": 'a lower-case letter, then letters, digits and "-": "my-plugin"',
    "entry": '"package.module:object", the object being a plugin or a class that makes one',
    "version": 'letters, digits, ".", "+", "!" and "-": "1.0.0"',
    "type": ", ".join(_PYTHON_TYPES),
}


def _four_lines(
    plugin_id: str | None, what: str, where: str, file: Path | str, remedy: str
) -> ConfigurationError:
    subject = f"plugin {plugin_id}" if plugin_id else "plugin manifest"
    return ConfigurationError(
        f"{subject}: {what}\n  where: {where}\n  file: {file}\n  what would do: {remedy}"
    )


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"one of {', '.join(sorted(known))}" if known else "nothing: the plugin has none"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
