"""Sources of settings, their precedence, and errors in keys, values and files."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from registry.config import (
    SETTINGS,
    load,
)
from registry.errors import ConfigError
from tests.support.settings import read_settings, refusal


def test_later_sources_win(tmp_path: Path) -> None:
    given = read_settings(
        tmp_path,
        '[http]\nlisten = "localhost:1"\nworkers = 2\ndrain_timeout = "1s"\n',
        {"MOORAGE_HTTP__LISTEN": "localhost:2", "MOORAGE_HTTP__WORKERS": "3"},
        {"http.listen": "localhost:3"},
    )
    assert given.http.listen == "localhost:3"
    assert given.http.workers == 3
    assert given.http.drain_timeout == 1.0
    assert given.origins["http.listen"] == "option"
    assert given.origins["http.workers"] == "env"
    assert given.origins["http.drain_timeout"] == "file"
    assert given.origins["http.body_idle_timeout"] == "default"
    assert given.origins.keys() == SETTINGS.keys()


def test_every_setting_can_come_from_the_environment(tmp_path: Path) -> None:
    given = read_settings(
        tmp_path,
        environ={
            "MOORAGE_STORAGE__UPLOAD_EXPIRY": "2s",
            "MOORAGE_HTTP__TRUSTED_PROXIES": "10.0.0.0/8,::1",
            "MOORAGE_CONTENT__READ_ONLY": "yes",
            "MOORAGE_CONTENT__ALLOW_DELETE": "0",
            "MOORAGE_LOG__FORMAT": "json",
        },
    )
    assert given.storage.upload_expiry == 2.0
    assert given.http.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert given.content.read_only
    assert not given.content.allow_delete
    assert given.log.format == "json"


def test_other_variables_are_ignored(tmp_path: Path) -> None:
    environ = {"MOORAGE_SOAK": "1", "MOORAGE_PORT": "tcp://10.0.0.1:5000", "HTTP__LISTEN": "x"}
    assert read_settings(tmp_path, environ=environ) == read_settings(tmp_path)


def test_the_environment_of_the_process_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_HTTP__WORKERS", "7")
    assert load(config=None, data=tmp_path, overrides={}).http.workers == 7


def test_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"MOORAGE_DATA": str(tmp_path / "of-environment")}
    option = Path("of-option")
    assert load(config=None, data=option, overrides={}, environ=environ).data == tmp_path / option
    assert load(config=None, data=None, overrides={}, environ=environ).data.name == "of-environment"
    for empty in ({}, {"MOORAGE_DATA": ""}):
        assert load(config=None, data=None, overrides={}, environ=empty).data == tmp_path / "data"


def test_the_settings_file(tmp_path: Path) -> None:
    for name in ("moorage", "of-environment", "of-option"):
        (tmp_path / f"{name}.toml").write_text(f'[storage]\nroot = "{name}"\n')
    environ = {"MOORAGE_CONFIG": str(tmp_path / "of-environment.toml")}
    option = tmp_path / "of-option.toml"
    for config, variables, name in [
        (option, environ, "of-option"),
        (None, environ, "of-environment"),
        (None, {"MOORAGE_CONFIG": ""}, "moorage"),
        (None, {}, "moorage"),
    ]:
        given = load(config=config, data=tmp_path, overrides={}, environ=variables)
        assert given.storage.root == name
        assert given.source == tmp_path / f"{name}.toml"


@pytest.mark.parametrize(
    ("toml", "unknown", "nearest"),
    [
        ("[http]\nlisen = 1\n", "http.lisen", "http.listen"),
        ("[http]\nupload_expiry = 1\n", "http.upload_expiry", "storage.upload_expiry"),
        ("[http.listen]\nhost = 1\n", "http.listen", '"127.0.0.1:5000"'),
        ("[htp]\nlisten = 1\n", "[htp]", "[http]"),
        ("http = 1\n", '"http"', "[http]"),
        ('"http.listen" = "localhost:1"\n', '"http.listen"', "http.listen"),
    ],
)
def test_unknown_keys_in_the_file(tmp_path: Path, toml: str, unknown: str, nearest: str) -> None:
    message = refusal(tmp_path, toml)
    assert unknown in message
    assert message.endswith(f"did you mean {nearest}?") or f"such as {nearest}" in message
    assert f"(file {tmp_path / 'moorage.toml'})" in message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MOORAGE_HTTP__LISEN", "MOORAGE_HTTP__LISTEN"),
        ("MOORAGE_HTP__LISTEN", "MOORAGE_HTTP__LISTEN"),
        ("MOORAGE_http__listen", "MOORAGE_HTTP__LISTEN"),
        ("MOORAGE_AUTH_MODE", "MOORAGE_AUTH__MODE"),
    ],
)
def test_unknown_variables(tmp_path: Path, name: str, nearest: str) -> None:
    assert refusal(tmp_path, environ={name: "VALUE"}) == (
        f"unknown setting {name} (environment); did you mean {nearest}?"
    )


def test_unknown_options(tmp_path: Path) -> None:
    assert refusal(tmp_path, overrides={"http.worker": "2"}) == (
        "unknown setting http.worker (command line); did you mean http.workers?"
    )


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_settings(
            tmp_path,
            '[http]\nworkers = 0\nlisen = "x"\n',
            {"MOORAGE_LOG__LEVEL": "loud"},
            {"http.listen": "5000"},
        )
    assert refused.value.message.startswith("4 settings are wrong:\n  ")
    assert len(refused.value.detail) == 4
    for key in ("http.workers", "http.lisen", "log.level", "http.listen"):
        assert key in refused.value.message


def test_a_number_without_a_unit_is_not_a_duration(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[http]\ndrain_timeout = 30\n") == (
        f"http.drain_timeout = 30 (file {tmp_path / 'moorage.toml'}):"
        ' expected a duration with a unit, such as "30s"'
    )


def test_an_error_names_the_source(tmp_path: Path) -> None:
    assert refusal(tmp_path, environ={"MOORAGE_LOG__LEVEL": "loud"}) == (
        "log.level = 'loud' (environment variable MOORAGE_LOG__LEVEL):"
        ' expected "debug" or "info" or "warning" or "error"'
    )
    assert "http.listen = '5000' (command line)" in refusal(
        tmp_path, overrides={"http.listen": "5000"}
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("http.listen", "::1:5000"),
        ("http.workers", "0"),
        ("http.external_url", "https://a/path?query"),
        ("http.cors_origins", "ui.example.org"),
        ("http.trusted_proxies", "10.0.0.1/8"),
        ("http.body_idle_timeout", "0s"),
        ("storage.driver", "s3?"),
        ("storage.sse", "rot13"),
        ("storage.part_size", "4MiB"),
        ("storage.part_size", "6GiB"),
        ("storage.upload_concurrency", "0"),
        ("storage.redirect_lifetime", "9s"),
        ("storage.redirect_lifetime", "8d"),
        ("storage.redirect_lifetime", "10500ms"),
        ("storage.redirect_endpoint", "s3.example.org"),
        ("storage.min_free_space", "64MB"),
        ("storage.upload_expiry", "1"),
        ("database.url", "mysql://db"),
        ("auth.mode", "off"),
        ("auth.realm", "auth.example.org/token"),
        ("auth.jwks_url", "https://user:word@example.org/keys"),
        ("auth.jwks_url", "file:///keys.json"),
        ("auth.jwks_refresh_interval", "0s"),
        ("auth.oidc", "https://example.org"),
        ("auth.oidc", "{}"),
        ("content.allow_delete", "maybe"),
        ("limits.page_size", "-1"),
        ("log.format", "xml"),
    ],
)
def test_values_that_do_not_fit(tmp_path: Path, key: str, text: str) -> None:
    message = refusal(tmp_path, overrides={key: text})
    assert message.startswith(key)
    assert f"expected {SETTINGS[key].kind.expected}" in message


def test_a_wrong_value_is_reported_even_if_overridden(tmp_path: Path) -> None:
    assert "http.workers" in refusal(
        tmp_path, "[http]\nworkers = 0\n", overrides={"http.workers": "1"}
    )


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_named_file_must_exist(tmp_path: Path, by: str) -> None:
    path = tmp_path / "absent.toml"
    with pytest.raises(ConfigError, match=r"there is no settings file .*absent\.toml"):
        load(
            config=path if by == "option" else None,
            data=tmp_path,
            overrides={},
            environ={"MOORAGE_CONFIG": str(path)} if by == "environment" else {},
        )


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_directory_is_not_a_settings_file(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(config=Path(folder), data=tmp_path, overrides={}, environ={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[http]\nlisten = "x\n', "is not valid TOML: .*line 2"),
        (b"[http]\n\n[http]\n", "is not valid TOML: .*line 3"),
        (b"[http]\n# \xff\n", r"is not valid UTF-8 \(line 2\)"),
        (b"[http]\nworkers = " + b"9" * 5000, "is not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "moorage.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path)


def test_no_message_contains_a_secret(tmp_path: Path) -> None:
    wrong = "postgres:me:KEY@db/moorage"
    for message in (
        refusal(tmp_path, environ={"MOORAGE_DATABASE__URL": wrong}),
        refusal(tmp_path, overrides={"database.url": wrong}),
        refusal(tmp_path, overrides={"database.ulr": wrong}),
        refusal(tmp_path, f'[database]\nurl = ["{wrong}"]\n'),
        refusal(tmp_path, f'database = "{wrong}"\n'),
        refusal(tmp_path, f'[datab]\nurl = "{wrong}"\n'),
        refusal(tmp_path, f'[database]\nurl = "{wrong}\n'),
    ):
        assert "KEY" not in message
        assert "datab" in message.lower() or "line 2" in message
