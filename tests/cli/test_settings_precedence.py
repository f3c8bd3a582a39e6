"""Flags, then the environment, then carapace.toml, then what plugin.toml says: the first that has it wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import EnvSettingsSource

from carapace_cron.cli.main import main
from carapace_cron.cli.settings import EXAMPLES, Settings, load_settings, unknown_variables
from carapace_cron.gateway.manifest import read_manifest, settings_for
from carapace_cron.plugin import PLUGIN_ID
from carapace_cron.settings import CronSettings

PLUGIN_TOML = Path(__file__).parents[2] / "carapace_cron" / "plugin.toml"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in unknown_variables():
        monkeypatch.delenv(name.split()[0])
    return tmp_path


def in_force(**flags: Any) -> CronSettings:
    """The extension's settings as it gets them from the gateway."""
    given = load_settings(None, **flags).for_gateway().plugins[PLUGIN_ID]
    return CronSettings.model_validate(settings_for(read_manifest(PLUGIN_TOML), given))


def test_the_first_that_has_it_wins(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_force().max_concurrent_runs == 5, "plugin.toml"
    (here / "carapace.toml").write_text("max_concurrent_runs = 7\nport = 1111\n")
    assert in_force().max_concurrent_runs == 7
    monkeypatch.setenv("CARAPACE_CRON_MAX_CONCURRENT_RUNS", "9")
    monkeypatch.setenv("CARAPACE_CRON_PORT", "2222")
    assert in_force().max_concurrent_runs == 9
    assert load_settings(None).port == 2222
    assert load_settings(None, port=3333).port == 3333
    assert load_settings(None, port=None).port == 2222, "a flag that was not given says nothing"


def test_the_plugins_own_table_yields_to_the_flat_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "carapace.toml").write_text("[plugins.carapace-cron]\nmin_interval_seconds = 5\n")
    assert in_force().min_interval_seconds == 5
    monkeypatch.setenv("CARAPACE_CRON_MIN_INTERVAL_SECONDS", "2")
    assert in_force().min_interval_seconds == 2


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "ADMIN_TOKEN": "a-token-of-our-own",
        "JOB_STORE": "s3://bucket/prefix",
        "S3_ENDPOINT_URL": "http://127.0.0.1:9000",
        "URL_ALLOW": "10.0.0.0/8",
        "CHANNELS": '{"ops": {"kind": "webhook", "url": "https://example.com/"}}',
    }
    for name, value in values.items():
        monkeypatch.setenv(f"CARAPACE_CRON_{name}", value)
    settings = in_force()
    assert settings.admin_token.get_secret_value() == "a-token-of-our-own"
    assert settings.on_s3 and settings.s3_endpoint_url == "http://127.0.0.1:9000"
    assert settings.channels["ops"].of_kind == {"url": "https://example.com/"}
    assert "a-token-of-our-own" not in repr(load_settings(None)) + repr(settings)


def test_a_file_that_is_named_is_read_instead(here: Path) -> None:
    (here / "carapace.toml").write_text("port = 1111\n")
    (here / "other.toml").write_text("port = 4444\n")
    assert load_settings(here / "other.toml").port == 4444


def test_an_unknown_variable_is_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAPACE_CRON_DATADIR", "x")
    sentences = unknown_variables()
    assert sentences == [
        "CARAPACE_CRON_DATADIR is not a setting; did you mean CARAPACE_CRON_DATA_DIR?"
    ]


BAD = [
    # carapace.toml | variables | what is said
    ("prot = 1", {}, "unknown setting prot: did you mean port?"),
    ("port = 70000", {}, "bad setting port (CARAPACE_CRON_PORT): expected at most 65535"),
    ("", {"PORT": "many"}, "bad setting port (CARAPACE_CRON_PORT): expected a whole number"),
    ("", {"MIN_INTERVAL_SECONDS": "0"},
     "bad setting min_interval_seconds (CARAPACE_CRON_MIN_INTERVAL_SECONDS): expected at least 1"),
    ("", {"ADMIN_TOKEN": "hunter2"},
     "bad setting admin_token (CARAPACE_CRON_ADMIN_TOKEN): expected at least 16 characters, or none at all"),
    ("port = ", {}, "the settings file carapace.toml cannot be read: Invalid value (at line 1, column 8)"),
    ("port = '\udcff'", {}, "the settings file carapace.toml cannot be read: 'utf-8' codec can't decode"),
    ("", {"ALLOWED_HOSTS": "hunter2"},
     "bad setting allowed_hosts (CARAPACE_CRON_ALLOWED_HOSTS): expected JSON, such as "
     """CARAPACE_CRON_ALLOWED_HOSTS='["cron.example"]'"""),
    ("", {"CHANNELS": "ops"}, "bad setting channels (CARAPACE_CRON_CHANNELS): expected JSON, such as"),
    ("", {"JOB_STORE": "ftp://somewhere"},
     'unknown JOB_STORE "ftp://somewhere": expected one that begins with s3: or sqlite:'),
    ("", {"URL_ALLOW": "everything"}, "everything"),
    ("", {"DATA_DIR": "carapace.toml"}, "cannot use the data directory"),
    ("", {"HOST": "203.0.113.7"}, "cannot listen on 203.0.113.7:0: "),
    ('[channels.ops]\nkind = "pigeon"', {},
     'unknown kind "pigeon" in [channels.ops]: expected one of apprise, email, pagerduty, slack, webhook'),
]  # fmt: skip


@pytest.mark.parametrize(("toml", "variables", "sentence"), BAD)
def test_a_bad_setting_is_one_sentence_and_status_1(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    toml: str,
    variables: dict[str, str],
    sentence: str,
) -> None:
    (here / "carapace.toml").write_text(toml + "\n", errors="surrogateescape")
    given = variables if "port" in toml or "PORT" in variables else {"PORT": "0", **variables}
    for name, value in given.items():
        monkeypatch.setenv(f"CARAPACE_CRON_{name}", value)
    monkeypatch.setattr("sys.argv", ["carapace-cron", "serve"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("carapace-cron: ")
    assert "hunter2" not in said


def test_each_list_and_table_has_an_example_that_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = EnvSettingsSource(Settings)
    complex_ones = {name for name, one in Settings.model_fields.items() if environment.field_is_complex(one)}
    assert complex_ones == EXAMPLES.keys()
    for name, example in EXAMPLES.items():
        monkeypatch.setenv(f"CARAPACE_CRON_{name.upper()}", example)
    settings = load_settings(None)
    assert all(getattr(settings, name) for name in EXAMPLES)


def test_a_settings_file_that_is_not_there_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["carapace-cron", "serve", "--config", str(here / "none.toml")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"carapace-cron: there is no settings file {here / 'none.toml'}\n"
