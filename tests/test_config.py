"""Settings from defaults, file, environment and options, and the errors for invalid settings."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote

import pytest
from sqlalchemy.engine import make_url

from registry.config import (
    SETTINGS,
    Settings,
    load,
    require_safe_listen,
    sends_passwords_in_clear,
    show,
)
from registry.errors import ConfigError


def settings(
    tmp_path: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings with `toml` as the settings file of the data directory."""
    if toml:
        (tmp_path / "moorage.toml").write_text(toml)
    return load(config=None, data=tmp_path, overrides=overrides or {}, environ=environ or {})


def refusal(
    tmp_path: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, toml, environ, overrides)
    return refused.value.message


# Defaults


def test_the_defaults(tmp_path: Path) -> None:
    assert show(settings(tmp_path)) == {
        "data": str(tmp_path),
        "config": None,
        "http": {
            "listen": "127.0.0.1:5000",
            "ops_listen": "",
            "workers": 1,
            "external_url": "",
            "cors_origins": [],
            "trusted_proxies": [],
            "tls_cert": "",
            "tls_key": "",
            "tls_client_ca": "",
            "drain_timeout": "30s",
            "shutdown_delay": "0s",
            "body_idle_timeout": "30s",
            "keep_alive_timeout": "75s",
        },
        "storage": {
            "driver": "local",
            "name": "",
            "root": str(tmp_path / "storage"),
            "min_free_space": "64MiB",
            "bucket": "",
            "prefix": "",
            "endpoint": "",
            "region": "",
            "access_key": "",
            "secret_key": "",
            "path_style": False,
            "sse": "",
            "storage_class": "",
            "part_size": "16MiB",
            "upload_concurrency": 4,
            "redirect": False,
            "redirect_lifetime": "20m",
            "redirect_endpoint": "",
            "upload_expiry": "1d",
        },
        "old_storage": {
            "driver": "",
            "name": "",
            "root": "",
            "min_free_space": "64MiB",
            "bucket": "",
            "prefix": "",
            "endpoint": "",
            "region": "",
            "access_key": "",
            "secret_key": "",
            "path_style": False,
            "sse": "",
            "storage_class": "",
            "part_size": "16MiB",
            "upload_concurrency": 4,
            "redirect": False,
            "redirect_lifetime": "20m",
            "redirect_endpoint": "",
        },
        "database": {
            "url": f"sqlite:///{tmp_path}/moorage.db",
            "read_connections": 5,
            "write_connections": 3,
            "transaction_pooling": False,
        },
        "auth": {
            "mode": "",
            "service": "moorage",
            "token_lifetime": "5m",
            "refresh_tokens": True,
            "personal_namespaces": False,
            "key_store": "auto",
            "secret": "",
            "admin_user": "admin",
            "admin_password": "",
            "audit_retention": "365d",
            "issuer": "",
            "audience": "",
            "realm": "",
            "jwks_url": "",
            "jwks_file": "",
            "local_users": True,
            "allow_private_addresses": False,
            "ca_file": "",
            "jwks_refresh_interval": "15m",
            "oidc": [],
        },
        "content": {
            "allow_sparse_index": False,
            "allow_sparse_image": False,
            "allow_delete": True,
            "read_only": False,
        },
        "gc": {
            "grace_period": "1d",
            "interval": "1m",
            "untagged": "keep",
            "rules": [],
            "limit_deletions": 0,
            "limit_rate": "0B",
            "window": "",
        },
        "limits": {
            "page_size": 10_000,
            "max_page_size": 10_000,
            "connections": 8192,
            "connections_per_address": 2048,
            "requests_per_second": 0,
            "failed_sign_ins": 30,
            "uploads_per_minute": 0,
            "manifest_cache_size": "64MiB",
            "request_memory": "32MiB",
            "response_memory": "32MiB",
            "open_uploads": 1000,
        },
        "jobs": {"in_serve": True},
        "scrub": {"enabled": True, "interval": "30d", "limit_rate": "20MiB"},
        "upstream": {
            "url": "",
            "username": "",
            "password": "",
            "allow_private_addresses": False,
            "ca_file": "",
        },
        "retention": {"interval": "1h", "pull_flush_interval": "1m"},
        "log": {"format": "text", "level": "info", "access": True, "probes": True},
    }


def test_every_default_is_a_value_that_its_kind_writes_and_reads() -> None:
    for setting in SETTINGS.values():
        assert setting.kind.from_toml(setting.kind.show(setting.default)) == setting.default
        assert setting.doc.endswith(".")


def test_durations_are_seconds_and_sizes_bytes(tmp_path: Path) -> None:
    given = settings(
        tmp_path, '[http]\ndrain_timeout = "200ms"\n[storage]\nmin_free_space = "1KiB"\n'
    )
    assert given.http.drain_timeout == 0.2
    assert given.storage.min_free_space == 1024


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        settings(tmp_path).http.workers = 2  # type: ignore[misc]


def test_settings_travel_to_a_worker_process(tmp_path: Path) -> None:
    given = settings(tmp_path, overrides={"http.trusted_proxies": "::1"})
    copy = pickle.loads(pickle.dumps(given))  # noqa: S301 - our own bytes
    assert copy == given
    assert copy.origins == given.origins


# Where settings come from


def test_later_sources_win(tmp_path: Path) -> None:
    given = settings(
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
    given = settings(
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


def test_other_variables_are_none_of_our_business(tmp_path: Path) -> None:
    environ = {"MOORAGE_SOAK": "1", "MOORAGE_PORT": "tcp://10.0.0.1:5000", "HTTP__LISTEN": "x"}
    assert settings(tmp_path, environ=environ) == settings(tmp_path)


def test_the_environment_of_the_process_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_HTTP__WORKERS", "7")
    assert load(config=None, data=tmp_path, overrides={}).http.workers == 7


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_relative_folders_start_at_the_data_folder(tmp_path: Path) -> None:
    assert settings(tmp_path).storage_root == tmp_path / "storage"
    blobs = settings(tmp_path, overrides={"storage.root": "blobs"})
    assert blobs.storage_root == tmp_path / "blobs"
    elsewhere = settings(tmp_path, overrides={"storage.root": "/srv/blobs"})
    assert elsewhere.storage_root == Path("/srv/blobs")


def test_any_data_folder_makes_a_database_url(tmp_path: Path) -> None:
    odd = tmp_path / "a b?c#d%41@e:f"
    given = load(config=None, data=odd, overrides={}, environ={})
    assert make_url(given.database_url).database == str(odd / "moorage.db")
    assert unquote(show(given)["database"]["url"]) == f"sqlite:///{odd}/moorage.db"


def test_a_database_url_of_ones_own(tmp_path: Path) -> None:
    given = settings(tmp_path, '[database]\nurl = "postgresql+psycopg://me:KEY@db/moorage"\n')
    assert given.database_url == "postgresql+psycopg://me:KEY@db/moorage"


@pytest.mark.parametrize(
    ("listen", "address"),
    [("[::1]:5000", ("::1", 5000)), (":0", ("", 0)), ("localhost:1", ("localhost", 1))],
)
def test_the_address_to_listen_on(tmp_path: Path, listen: str, address: tuple[str, int]) -> None:
    assert settings(tmp_path, overrides={"http.listen": listen}).http.address == address


# Unknown keys


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
    assert message.endswith(nearest) or f"such as {nearest}" in message
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
        f"unknown setting {name} (environment); the nearest is {nearest}"
    )


def test_unknown_options(tmp_path: Path) -> None:
    assert refusal(tmp_path, overrides={"http.worker": "2"}) == (
        "unknown setting http.worker (command line); the nearest is http.workers"
    )


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(
            tmp_path,
            '[http]\nworkers = 0\nlisen = "x"\n',
            {"MOORAGE_LOG__LEVEL": "loud"},
            {"http.listen": "5000"},
        )
    assert refused.value.message.startswith("4 settings are wrong:\n  ")
    assert len(refused.value.detail) == 4
    for key in ("http.workers", "http.lisen", "log.level", "http.listen"):
        assert key in refused.value.message


# Invalid values


def test_a_number_without_a_unit_is_no_duration(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[http]\ndrain_timeout = 30\n") == (
        f"http.drain_timeout = 30 (file {tmp_path / 'moorage.toml'}):"
        ' expected a duration with its unit, such as "30s"'
    )


def test_the_place_is_named(tmp_path: Path) -> None:
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


def test_a_wrong_value_is_told_even_if_another_overrides_it(tmp_path: Path) -> None:
    assert "http.workers" in refusal(
        tmp_path, "[http]\nworkers = 0\n", overrides={"http.workers": "1"}
    )


def test_memory_is_the_memory_of_one_process(tmp_path: Path) -> None:
    overrides = {"storage.driver": "memory", "http.workers": "2"}
    assert "storage.driver" in refusal(tmp_path, overrides=overrides)
    alone = settings(tmp_path, overrides=overrides | {"http.workers": "1"})
    assert alone.storage.driver == "memory"


S3 = {"storage.driver": "s3", "storage.bucket": "blobs"}


def test_a_bucket_is_named_where_it_is_used(tmp_path: Path) -> None:
    assert load(config=None, data=tmp_path, environ={}, overrides=S3).storage.part_size == 16 << 20
    assert "needs storage.bucket" in refusal(tmp_path, overrides={"storage.driver": "s3"})
    assert 'only with storage.driver = "s3"' in refusal(
        tmp_path, overrides={"storage.bucket": "blobs"}
    )


def test_clients_are_sent_only_to_a_bucket(tmp_path: Path) -> None:
    assert 'only with storage.driver = "s3"' in refusal(
        tmp_path, overrides={"storage.redirect": "true"}
    )
    elsewhere = {"storage.redirect_endpoint": "https://s3.example.org"}
    assert "only with storage.redirect" in refusal(tmp_path, overrides={**S3, **elsewhere})
    together = settings(tmp_path, overrides={**S3, **elsewhere, "storage.redirect": "true"})
    assert together.storage.redirect_lifetime == 1200


@pytest.mark.parametrize("key", ["storage.access_key", "storage.secret_key"])
def test_a_key_goes_with_its_secret(tmp_path: Path, key: str) -> None:
    told = refusal(tmp_path, overrides={**S3, key: "HIDDEN"})
    assert "set both, or neither" in told
    assert "HIDDEN" not in told


def test_the_secret_of_a_bucket_is_not_shown(tmp_path: Path) -> None:
    keys = {"storage.access_key": "shown", "storage.secret_key": "HIDDEN"}
    settings = load(config=None, data=tmp_path, environ={}, overrides={**S3, **keys})
    assert "HIDDEN" not in f"{show(settings)}{settings}"
    assert show(settings)["storage"]["secret_key"] == "***"  # noqa: S105


TO_S3 = {**S3, "old_storage.driver": "local"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"old_storage.driver": "local"}, 'are both called "local"'),
        (
            {"old_storage.driver": "local", "old_storage.name": "first"},
            "are the same place",
        ),
        (TO_S3 | {"storage.name": "local"}, 'are both called "local"'),
        (TO_S3 | {"old_storage.bucket": "a"}, 'only with old_storage.driver = "s3"'),
        (S3 | {"old_storage.driver": "s3"}, "needs old_storage.bucket"),
        (
            S3 | {f"old_{key}": value for key, value in S3.items()} | {"storage.name": "new"},
            "are the same place",
        ),
        ({"old_storage.root": "old"}, "old_storage.root is of use only with old_storage.driver"),
        ({"old_storage.driver": "memory"}, "old_storage.driver = 'memory'"),
    ],
)
def test_two_stores_that_cannot_be(tmp_path: Path, overrides: dict[str, str], told: str) -> None:
    assert told in refusal(tmp_path, overrides=overrides)


def test_two_stores(tmp_path: Path) -> None:
    both = settings(tmp_path, overrides=TO_S3)
    assert (both.storage.store_name, both.old_storage.store_name) == ("s3", "local")
    assert both.find_root(both.old_storage) == tmp_path / "storage"
    disks = {"storage.name": "second", "storage.root": "new", "old_storage.driver": "local"}
    both = settings(tmp_path, overrides=disks)
    assert (both.storage.store_name, both.old_storage.store_name) == ("second", "local")
    variables = {"MOORAGE_OLD_STORAGE__DRIVER": "local", "MOORAGE_STORAGE__NAME": "second"}
    variables["MOORAGE_STORAGE__ROOT"] = "new"
    told = load(config=None, data=tmp_path, overrides={}, environ=variables)
    assert told.old_storage == both.old_storage


def test_the_default_page_is_no_larger_than_the_largest(tmp_path: Path) -> None:
    assert "limits.max_page_size = 10" in refusal(tmp_path, "[limits]\nmax_page_size = 10\n")


OUTSIDE = {
    "auth.issuer": "gitlab-issuer",
    "auth.audience": "container_registry",
    "auth.realm": "https://gitlab.example.org/jwt/auth",
    "auth.jwks_url": "https://gitlab.example.org/oauth/discovery/keys",
}
OIDC = '[{"issuer": "%s", "rules": [{"robot": "ci", "claims": {"repository": "org/app"}}]}]'
GITHUB = OIDC % "https://token.actions.githubusercontent.com"


@pytest.mark.parametrize(
    "overrides",
    [
        OUTSIDE,
        OUTSIDE | {"auth.realm": ""},
        OUTSIDE | {"auth.local_users": "false"},
        OUTSIDE | {"auth.jwks_url": "", "auth.jwks_file": "keys.json"},
        OUTSIDE | {"auth.jwks_url": "http://gitlab/keys", "auth.allow_private_addresses": "true"},
        OUTSIDE | {"auth.oidc": GITHUB},
        {"auth.oidc": OIDC % "http://gitlab", "auth.allow_private_addresses": "true"},
    ],
)
def test_outside_issuers(tmp_path: Path, overrides: Mapping[str, str]) -> None:
    settings(tmp_path, overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (OUTSIDE | {"auth.jwks_file": "keys.json"}, "auth.jwks_url and auth.jwks_file exclude"),
        (OUTSIDE | {"auth.issuer": ""}, "auth.issuer is needed"),
        (OUTSIDE | {"auth.audience": ""}, "auth.audience is needed"),
        ({"auth.issuer": "gitlab-issuer"}, "auth.issuer is of use only"),
        ({"auth.audience": "registry"}, "auth.audience is of use only"),
        ({"auth.realm": "https://auth.example.org"}, "auth.realm is of use only"),
        ({"auth.local_users": "false"}, "auth.local_users = false needs"),
        (
            OUTSIDE | {"auth.local_users": "false", "auth.realm": ""},
            "auth.local_users = false needs",
        ),
        (
            OUTSIDE | {"auth.local_users": "false", "auth.oidc": GITHUB},
            "auth.oidc needs robots",
        ),
        (OUTSIDE | {"auth.jwks_url": "http://gitlab/keys"}, "auth.jwks_url = .* must be https"),
        ({"upstream.url": "http://other"}, "upstream.url = .* must be https"),
        ({"upstream.url": "https://other", "upstream.username": "ann"}, "belong together"),
        ({"upstream.ca_file": "ca.pem"}, r"\[upstream\] is of use only with upstream.url"),
        ({"auth.oidc": OIDC % "http://gitlab"}, r"auth\.oidc\[0\]\.issuer = .* must be https"),
    ],
)
def test_outside_issuers_that_are_half_set(
    tmp_path: Path, overrides: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, overrides=overrides)


# Invalid files


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_named_file_must_be_there(tmp_path: Path, by: str) -> None:
    path = tmp_path / "absent.toml"
    with pytest.raises(ConfigError, match=r"there is no settings file .*absent\.toml"):
        load(
            config=path if by == "option" else None,
            data=tmp_path,
            overrides={},
            environ={"MOORAGE_CONFIG": str(path)} if by == "environment" else {},
        )


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_folder_is_no_file(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(config=Path(folder), data=tmp_path, overrides={}, environ={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[http]\nlisten = "x\n', "is not TOML: .*line 2"),
        (b"[http]\n\n[http]\n", "is not TOML: .*line 3"),
        (b"[http]\n# \xff\n", r"is not UTF-8 \(at line 2\)"),
        (b"[http]\nworkers = " + b"9" * 5000, "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "moorage.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path)


# Secrets


def test_a_secret_is_in_no_message(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:KEY@db/moorage",
        "postgres://me:KEY@h1,h2:5432/moorage",
        "postgresql://db/moorage?password=KEY",
    ],
)
def test_a_secret_is_not_printed(tmp_path: Path, url: str) -> None:
    given = settings(tmp_path, overrides={"database.url": url})
    assert given.database_url == url
    for printed in (repr(given), str(given.database), json.dumps(show(given))):
        assert "KEY" not in printed


def test_every_secret_stays_out_of_the_repr(tmp_path: Path) -> None:
    for key, setting in SETTINGS.items():
        section, name = key.split(".")
        tree = getattr(settings(tmp_path), section)
        assert is_dataclass(tree)
        shown = {each.name: each.repr for each in fields(tree)}
        assert shown[name] is not setting.kind.secret


# Listening


def _never() -> bool:
    raise AssertionError("nobody needs to look whether there are users")


@pytest.mark.parametrize("listen", ["127.0.0.1:5000", "127.9.9.9:1", "[::1]:0", "localhost:5000"])
def test_this_machine_needs_no_sign_in(tmp_path: Path, listen: str) -> None:
    require_safe_listen(settings(tmp_path, overrides={"http.listen": listen}), lambda: False)


@pytest.mark.parametrize(
    "listen", [":5000", "0.0.0.0:5000", "[::]:5000", "10.0.0.1:5000", "registry:5000"]
)
def test_other_machines_need_users_or_it_in_writing(tmp_path: Path, listen: str) -> None:
    reachable = {"http.listen": listen}
    for mode in ("", "token"):
        given = settings(tmp_path, overrides=reachable | ({"auth.mode": mode} if mode else {}))
        with pytest.raises(ConfigError) as refused:
            require_safe_listen(given, lambda: False)
        for way in (
            f"moorage user add NAME --admin --data {tmp_path}",
            f"moorage serve --listen {listen} --data {tmp_path}",
            '[auth] mode = "none"',
            "MOORAGE_AUTH__MODE=none",
        ):
            assert way in refused.value.message
        require_safe_listen(given, lambda: True)
    require_safe_listen(settings(tmp_path, overrides=reachable | {"auth.mode": "none"}), _never)


TLS = {"http.tls_cert": "cert.pem", "http.tls_key": "key.pem"}


@pytest.mark.parametrize(
    ("given", "readable"),
    [
        ({}, True),
        ({"http.external_url": "http://registry.example.org"}, True),
        ({"http.external_url": "https://registry.example.org"}, False),
        ({"http.trusted_proxies": "10.0.0.1"}, False),
        (TLS, False),
        ({"auth.mode": "none"}, False),
        ({"http.listen": "127.0.0.1:5000"}, False),
    ],
)
def test_whether_passwords_can_be_read_on_their_way(
    tmp_path: Path, given: dict[str, str], *, readable: bool
) -> None:
    read = settings(tmp_path, overrides={"http.listen": ":5000", **given})
    assert sends_passwords_in_clear(read) is readable
    if read.auth.mode != "none" and read.http.listen == ":5000":
        with pytest.raises(ConfigError) as refused:
            require_safe_listen(read, lambda: False)
        for remedy in ("tls_cert", "trusted_proxies", "external_url"):
            assert (remedy in refused.value.message) is readable
