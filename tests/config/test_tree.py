"""The tree of settings: defaults, types and derived values."""

import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
from sqlalchemy.engine import make_url

from registry.config import (
    SETTINGS,
    load,
    show,
)
from tests.support.settings import read_settings


def test_every_default_survives_printing_and_parsing() -> None:
    for setting in SETTINGS.values():
        assert setting.kind.from_toml(setting.kind.show(setting.default)) == setting.default
        assert setting.doc.endswith(".")


def test_durations_are_seconds_and_sizes_bytes(tmp_path: Path) -> None:
    given = read_settings(
        tmp_path, '[http]\ndrain_timeout = "200ms"\n[storage]\nmin_free_space = "1KiB"\n'
    )
    assert given.http.drain_timeout == 0.2
    assert given.storage.min_free_space == 1024


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        read_settings(tmp_path).http.workers = 2  # type: ignore[misc]


def test_settings_travel_to_a_worker_process(tmp_path: Path) -> None:
    given = read_settings(tmp_path, overrides={"http.trusted_proxies": "::1"})
    copy = pickle.loads(pickle.dumps(given))  # noqa: S301 - our own bytes
    assert copy == given
    assert copy.origins == given.origins


def test_relative_paths_start_at_the_data_directory(tmp_path: Path) -> None:
    assert read_settings(tmp_path).storage_root == tmp_path / "storage"
    blobs = read_settings(tmp_path, overrides={"storage.root": "blobs"})
    assert blobs.storage_root == tmp_path / "blobs"
    elsewhere = read_settings(tmp_path, overrides={"storage.root": "/srv/blobs"})
    assert elsewhere.storage_root == Path("/srv/blobs")


def test_any_data_directory_makes_a_database_url(tmp_path: Path) -> None:
    odd = tmp_path / "a b?c#d%41@e:f"
    given = load(config=None, data=odd, overrides={}, environ={})
    assert make_url(given.database_url).database == str(odd / "moorage.db")
    assert unquote(show(given)["database"]["url"]) == f"sqlite:///{odd}/moorage.db"


def test_a_database_url_in_the_settings(tmp_path: Path) -> None:
    given = read_settings(tmp_path, '[database]\nurl = "postgresql+psycopg://me:KEY@db/moorage"\n')
    assert given.database_url == "postgresql+psycopg://me:KEY@db/moorage"


@pytest.mark.parametrize(
    ("listen", "address"),
    [("[::1]:5000", ("::1", 5000)), (":0", ("", 0)), ("localhost:1", ("localhost", 1))],
)
def test_the_address_to_listen_on(tmp_path: Path, listen: str, address: tuple[str, int]) -> None:
    assert read_settings(tmp_path, overrides={"http.listen": listen}).http.address == address


def test_every_secret_stays_out_of_the_repr(tmp_path: Path) -> None:
    for key, setting in SETTINGS.items():
        section, name = key.split(".")
        tree = getattr(read_settings(tmp_path), section)
        assert is_dataclass(tree)
        shown = {each.name: each.repr for each in fields(tree)}
        assert shown[name] is not setting.kind.secret
