"""Secrets from files: `<key>_file`, `MOORAGE_…_FILE`, and the credentials of a systemd unit."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from registry.config import FILE_KEYS, SETTINGS, Settings, load, show
from registry.errors import ConfigError

SECRET = "s" * 32


def settings(data: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    (data / "moorage.toml").write_text(toml)
    return load(config=None, data=data, overrides={}, environ=environ or {})


def refusal(data: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        settings(data, toml, environ)
    return refused.value.message


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def test_every_secret_setting_can_come_from_a_file(tmp_path: Path) -> None:
    values = {"database.url": "postgresql+psycopg://moorage:KEY@db/moorage"}
    environ = {}
    for name, key in FILE_KEYS.items():
        path = tmp_path / name
        path.write_text(values.setdefault(key, f"{key:x<40}") + "\n")
        environ[f"MOORAGE_{name.upper().replace('.', '__')}"] = str(path)
    environ |= {
        "MOORAGE_STORAGE__DRIVER": "s3",
        "MOORAGE_STORAGE__BUCKET": "new",
        "MOORAGE_OLD_STORAGE__DRIVER": "s3",
        "MOORAGE_OLD_STORAGE__BUCKET": "old",
        "MOORAGE_OLD_STORAGE__NAME": "old",
        "MOORAGE_UPSTREAM__URL": "https://registry.example",
        "MOORAGE_UPSTREAM__USERNAME": "ann",
    }
    given = settings(tmp_path, environ=environ)
    assert {key for key, setting in SETTINGS.items() if setting.kind.secret} <= set(values)
    for key, value in values.items():
        section, name = key.split(".")
        assert getattr(getattr(given, section), name) == value
        assert given.origins[key] == "env"
    assert show(given)["auth"]["secret"] == "***"  # noqa: S105 - masked


def test_a_relative_path_in_the_settings_file_starts_at_the_data_folder(
    tmp_path: Path, secret: Path
) -> None:
    given = settings(tmp_path, f'[auth]\nsecret_file = "{secret.name}"\n')
    assert given.auth.secret == SECRET
    assert given.origins["auth.secret"] == "file"


def test_a_later_source_wins(tmp_path: Path, secret: Path) -> None:
    file = f'[auth]\nsecret_file = "{secret}"\n'
    given = settings(tmp_path, file, {"MOORAGE_AUTH__SECRET": "e" * 32})
    assert given.auth.secret == "e" * 32
    given = settings(
        tmp_path, f'[auth]\nsecret = "{"t" * 32}"\n', {"MOORAGE_AUTH__SECRET_FILE": str(secret)}
    )
    assert given.auth.secret == SECRET


def test_a_credential_that_is_named_after_a_setting_is_taken(tmp_path: Path, secret: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    secret.rename(credentials / "auth.secret")
    (credentials / "moorage.toml").write_text("not a setting")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    given = settings(tmp_path, f'[auth]\nsecret = "{"t" * 32}"\n', environ)
    assert given.auth.secret == SECRET
    assert given.origins["auth.secret"] == "credential"
    given = settings(tmp_path, environ=environ | {"MOORAGE_AUTH__SECRET": "e" * 32})
    assert given.auth.secret == "e" * 32


def test_a_value_and_a_file_in_one_source_exclude_each_other(tmp_path: Path, secret: Path) -> None:
    both = refusal(tmp_path, f'[auth]\nsecret = "{SECRET}"\nsecret_file = "{secret}"\n')
    assert "auth.secret and auth.secret_file cannot both be set" in both
    environ = {"MOORAGE_AUTH__SECRET": SECRET, "MOORAGE_AUTH__SECRET_FILE": str(secret)}
    both = refusal(tmp_path, environ=environ)
    assert "auth.secret and auth.secret_file cannot both be set" in both
    assert SECRET not in both


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff" * 40, "is not valid UTF-8"),
        (b"KEY-one\nKEY-two\n", "must contain a single line"),
        (b"K" * 70_000, "exceeds"),
        (b"KEY", "auth.secret must have at least 32 characters"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_not_quoted(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    message = refusal(tmp_path, f'[auth]\nsecret_file = "{path}"\n')
    assert said in message
    assert "KEY" not in message
    if "at least" not in said:
        assert "auth.secret_file" in message
        assert str(path) in message


def test_the_value_in_a_file_is_checked_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mysql://me:KEY@db/moorage")
    message = refusal(tmp_path, environ={"MOORAGE_DATABASE__URL_FILE": str(tmp_path / "url")})
    assert "database.url_file" in message
    assert "expected" in message
    assert "KEY" not in message


def test_only_secrets_have_files(tmp_path: Path) -> None:
    assert "unknown setting http.listen_file" in refusal(tmp_path, '[http]\nlisten_file = "a"\n')
    assert "expected the path of a file" in refusal(tmp_path, "[auth]\nsecret_file = 1\n")
