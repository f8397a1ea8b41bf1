"""The printed settings: defaults, and masked secrets."""

import json
from pathlib import Path

import pytest

from registry.config import (
    load,
    show,
)
from tests.support.settings import read_settings

S3 = {"storage.driver": "s3", "storage.bucket": "blobs"}


def test_the_defaults(tmp_path: Path) -> None:
    assert show(read_settings(tmp_path)) == {
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
            "answer_from_memory": True,
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
            "credential_helper": "",
            "token_origins": [],
            "proxy": "",
            "allow_private_addresses": False,
            "ca_file": "",
        },
        "mirrors": {"max_fills": 16, "spool_size": "4GiB"},
        "retention": {"interval": "1h", "pull_flush_interval": "1m"},
        "log": {"format": "text", "level": "info", "access": True, "probes": True},
    }


def test_the_secret_of_a_bucket_is_not_shown(tmp_path: Path) -> None:
    keys = {"storage.access_key": "shown", "storage.secret_key": "HIDDEN"}
    settings = load(config=None, data=tmp_path, environ={}, overrides={**S3, **keys})
    assert "HIDDEN" not in f"{show(settings)}{settings}"
    assert show(settings)["storage"]["secret_key"] == "***"  # noqa: S105


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:KEY@db/moorage",
        "postgres://me:KEY@h1,h2:5432/moorage",
        "postgresql://db/moorage?password=KEY",
    ],
)
def test_a_secret_is_not_printed(tmp_path: Path, url: str) -> None:
    given = read_settings(tmp_path, overrides={"database.url": url})
    assert given.database_url == url
    for printed in (repr(given), str(given.database), json.dumps(show(given))):
        assert "KEY" not in printed
