"""Combinations of settings that cannot be used."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from registry.config import (
    load,
)
from registry.errors import ConfigError
from tests.support.settings import read_settings, refusal


def test_the_memory_driver_requires_one_worker(tmp_path: Path) -> None:
    overrides = {"storage.driver": "memory", "http.workers": "2"}
    assert "storage.driver" in refusal(tmp_path, overrides=overrides)
    alone = read_settings(tmp_path, overrides=overrides | {"http.workers": "1"})
    assert alone.storage.driver == "memory"


S3 = {"storage.driver": "s3", "storage.bucket": "blobs"}


def test_the_s3_driver_requires_a_bucket(tmp_path: Path) -> None:
    assert load(config=None, data=tmp_path, environ={}, overrides=S3).storage.part_size == 16 << 20
    assert "requires storage.bucket" in refusal(tmp_path, overrides={"storage.driver": "s3"})
    assert 'requires storage.driver = "s3"' in refusal(
        tmp_path, overrides={"storage.bucket": "blobs"}
    )


def test_redirects_require_a_bucket(tmp_path: Path) -> None:
    assert 'requires storage.driver = "s3"' in refusal(
        tmp_path, overrides={"storage.redirect": "true"}
    )
    elsewhere = {"storage.redirect_endpoint": "https://s3.example.org"}
    assert "requires storage.redirect" in refusal(tmp_path, overrides={**S3, **elsewhere})
    together = read_settings(tmp_path, overrides={**S3, **elsewhere, "storage.redirect": "true"})
    assert together.storage.redirect_lifetime == 1200


@pytest.mark.parametrize("key", ["storage.access_key", "storage.secret_key"])
def test_an_access_key_and_its_secret_require_each_other(tmp_path: Path, key: str) -> None:
    told = refusal(tmp_path, overrides={**S3, key: "HIDDEN"})
    assert "set both or neither" in told
    assert "HIDDEN" not in told


TO_S3 = {**S3, "old_storage.driver": "local"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"old_storage.driver": "local"}, 'have the same name "local"'),
        (
            {"old_storage.driver": "local", "old_storage.name": "first"},
            "are the same location",
        ),
        (TO_S3 | {"storage.name": "local"}, 'have the same name "local"'),
        (TO_S3 | {"old_storage.bucket": "a"}, 'requires old_storage.driver = "s3"'),
        (S3 | {"old_storage.driver": "s3"}, "requires old_storage.bucket"),
        (
            S3 | {f"old_{key}": value for key, value in S3.items()} | {"storage.name": "new"},
            "are the same location",
        ),
        ({"old_storage.root": "old"}, "old_storage.root requires old_storage.driver"),
        ({"old_storage.driver": "memory"}, "old_storage.driver = 'memory'"),
    ],
)
def test_two_stores_that_conflict(tmp_path: Path, overrides: dict[str, str], told: str) -> None:
    assert told in refusal(tmp_path, overrides=overrides)


def test_two_stores(tmp_path: Path) -> None:
    both = read_settings(tmp_path, overrides=TO_S3)
    assert (both.storage.store_name, both.old_storage.store_name) == ("s3", "local")
    assert both.find_root(both.old_storage) == tmp_path / "storage"
    disks = {"storage.name": "second", "storage.root": "new", "old_storage.driver": "local"}
    both = read_settings(tmp_path, overrides=disks)
    assert (both.storage.store_name, both.old_storage.store_name) == ("second", "local")
    variables = {"MOORAGE_OLD_STORAGE__DRIVER": "local", "MOORAGE_STORAGE__NAME": "second"}
    variables["MOORAGE_STORAGE__ROOT"] = "new"
    told = load(config=None, data=tmp_path, overrides={}, environ=variables)
    assert told.old_storage == both.old_storage


def test_the_page_size_does_not_exceed_the_maximum(tmp_path: Path) -> None:
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
def test_external_issuers(tmp_path: Path, overrides: Mapping[str, str]) -> None:
    read_settings(tmp_path, overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            OUTSIDE | {"auth.jwks_file": "keys.json"},
            "auth.jwks_url and auth.jwks_file cannot both be set",
        ),
        (OUTSIDE | {"auth.issuer": ""}, "require auth.issuer"),
        (OUTSIDE | {"auth.audience": ""}, "require auth.audience"),
        ({"auth.issuer": "gitlab-issuer"}, "auth.issuer requires"),
        ({"auth.audience": "registry"}, "auth.audience requires"),
        ({"auth.realm": "https://auth.example.org"}, "auth.realm requires"),
        ({"auth.local_users": "false"}, "auth.local_users = false requires"),
        (
            OUTSIDE | {"auth.local_users": "false", "auth.realm": ""},
            "auth.local_users = false requires",
        ),
        (
            OUTSIDE | {"auth.local_users": "false", "auth.oidc": GITHUB},
            "auth.oidc requires robots",
        ),
        (OUTSIDE | {"auth.jwks_url": "http://gitlab/keys"}, "auth.jwks_url = .* must be https"),
        ({"upstream.url": "http://other"}, "upstream.url = .* must be https"),
        ({"upstream.url": "https://other", "upstream.username": "ann"}, "require each other"),
        ({"upstream.ca_file": "ca.pem"}, r"\[upstream\] requires upstream.url"),
        ({"auth.oidc": OIDC % "http://gitlab"}, r"auth\.oidc\[0\]\.issuer = .* must be https"),
    ],
)
def test_incomplete_external_issuers(
    tmp_path: Path, overrides: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path, overrides=overrides)
