"""``plugin.toml``: what is accepted, and the help for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.manifest import Manifest, read_manifest, settings_for

GOOD = """
id = "hello"
name = "Hello"
version = "1.0.0"
description = "Says hello"
entry = "hello.plugin:HelloPlugin"

[settings.greeting]
type = "string"
default = "Hello"
description = "The first word"
choices = ["Hello", "Hi"]

[settings.times]
type = "integer"
default = 1
minimum = 1
maximum = 9
description = "How often"

[settings.factor]
type = "number"
default = 1.5
description = "How loud"

[settings.token]
type = "string"
description = "Of the service"
secret = true

[settings.names]
type = "array"
default = []
description = "Whom"

[settings.extra]
type = "table"
default = {}
description = "Anything"

[settings.loud]
type = "boolean"
default = false
description = "Shout"

[capabilities]
agents = ["generate-report"]
scheduling = ["cron", "one-time", "recurring"]
"""


def manifest(tmp_path: Path, text: str = GOOD) -> Manifest:
    file = tmp_path / "plugin.toml"
    file.write_text(text)
    return read_manifest(file)


def test_it_reads_all_of_a_manifest(tmp_path: Path) -> None:
    read = manifest(tmp_path)
    assert (read.id, read.version, read.entry) == ("hello", "1.0.0", "hello.plugin:HelloPlugin")
    assert read.capabilities["scheduling"] == ["cron", "one-time", "recurring"]
    assert read.settings["token"].is_required
    assert not read.settings["loud"].is_required


@pytest.mark.parametrize(
    ("old", "new", "what", "where", "remedy"),
    [
        ('id = "hello"', "", 'missing key "id"', "the top of the file", 'id = "…"'),
        ('id = "hello"', "id = 7", "bad value id = 7", "the top of the file", "a lower-case letter"),
        ('id = "hello"', 'id = "Hello"', 'bad value id = "Hello"', "the top of the file", '"my-plugin"'),
        ('id = "hello"', 'id = "a/../b"', 'bad value id = "a/../b"', "the top of the file", "digits"),
        ('id = "hello"', 'id = "a\\n"', "bad value id", "the top of the file", "digits"),
        ('entry = "', 'entyr = "', 'unknown key "entyr"', "the top of the file", 'did you mean "entry"?'),
        ("plugin:Hello", "plugin.Hello", "bad value entry", "the top", '"package.module:object"'),
        ('version = "1.0.0"', "version = 1.0", "bad value version = 1.0", "the top", '"1.0.0"'),
        ('type = "integer"', 'type = "int"', 'bad value type = "int"', "[settings.t", "string, integer"),
        ("minimum = 1", "minimun = 1", 'unknown key "minimun"', "[settings.times]", '"minimum"?'),
        ("default = 1\n", "default = 0\n", "its default 0 is not", "[settings.times]", "at least 1"),
        ("default = 1\n", 'default = "1"\n', 'its default "1" is not', "[settings.t", "expected integer"),
        ("default = 1\n", "default = true\n", "its default True", "[settings.t", "expected integer"),
        ('default = "Hello"', 'default = "Hey"', 'default "Hey"', "[settings.greeting]", 'one of "Hello"'),
        ('"The first word"', '""', "bad value description", "[settings.greeting]", "at least 1 character"),
        ("default = false", "default = false\nminimum = 1", "a boolean with", "[settings.loud]", "integer"),
        ("[settings.loud]", "[settings.enabled]", 'setting "enabled"', "[settings.enabled]", "another name"),
        ('["generate-report"]', '"generate-report"', "bad value agents", "[capabilities]", "list"),
        ("[capabilities]", "[capability]", 'unknown key "capability"', "the top", '"capabilities"?'),
        ("[settings.loud]", "[settings.loud", "not TOML", "the whole file", "https://toml.io"),
        ('name = "Hello"', 'name = "' + "x" * 70_000 + '"', "bytes", "the whole file", "at most 65536 bytes"),
    ],
)
def test_it_says_what_is_wrong_where_and_what_would_do(
    tmp_path: Path, old: str, new: str, what: str, where: str, remedy: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError) as refusal:
        manifest(tmp_path, GOOD.replace(old, new, 1))
    lines = str(refusal.value).split("\n")
    assert len(lines) == 4
    assert lines[0].startswith("plugin manifest: ")
    assert what in lines[0]
    assert lines[1].startswith(f"  where: {where}")
    assert lines[2] == f"  file: {tmp_path / 'plugin.toml'}"
    assert lines[3].startswith("  what would do: ")
    assert remedy in lines[3]


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        read_manifest(tmp_path / "plugin.toml")


def test_a_file_that_is_not_text_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "plugin.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not TOML"):
        read_manifest(file)


def test_settings_are_filled_with_defaults(tmp_path: Path) -> None:
    assert settings_for(manifest(tmp_path), {"token": "t", "times": 3, "factor": 2}) == {
        "greeting": "Hello", "times": 3, "factor": 2, "token": "t", "names": [], "extra": {}, "loud": False,
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"tokne": "t"}, 'plugin hello: unknown setting "tokne"'),
        ({"tokne": "t"}, 'what would do: did you mean "token"?'),
        ({}, 'plugin hello: missing setting "token"'),
        ({}, "what would do: token = … (string: Of the service)"),
        ({"token": "t", "times": 0}, "bad setting times = 0"),
        ({"token": "t", "times": 10}, "expected at most 9"),
        ({"token": "t", "times": 1.0}, "expected integer"),
        ({"token": "t", "times": True}, "expected integer"),
        ({"token": "t", "factor": float("nan")}, "expected number"),
        ({"token": "t", "loud": 1}, "expected boolean"),
        ({"token": "t", "greeting": "Hey"}, 'expected one of "Hello", "Hi"'),
        ({"token": "t", "names": {}}, "expected array"),
        ({"token": "t", "extra": []}, "expected table"),
    ],
)
def test_a_bad_setting_is_refused_with_help(tmp_path: Path, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings_for(manifest(tmp_path), given)
    assert sentence in str(refusal.value)
    assert "where: [plugins.hello]" in str(refusal.value)


def test_a_bad_secret_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings_for(manifest(tmp_path), {"token": 1234567})
    assert "1234567" not in str(refusal.value)


def test_a_plugin_without_settings_says_so(tmp_path: Path) -> None:
    bare = manifest(tmp_path, GOOD.partition("[settings.greeting]")[0])
    with pytest.raises(ConfigurationError, match="what would do: nothing: the plugin has none"):
        settings_for(bare, {"x": 1})
