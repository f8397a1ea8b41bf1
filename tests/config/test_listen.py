"""Listening on addresses that other machines can reach."""

from pathlib import Path

import pytest

from registry.config import (
    require_safe_listen,
    sends_passwords_in_clear,
)
from registry.errors import ConfigError
from tests.support.settings import read_settings


def _never() -> bool:
    raise AssertionError("users must not be queried")


@pytest.mark.parametrize("listen", ["127.0.0.1:5000", "127.9.9.9:1", "[::1]:0", "localhost:5000"])
def test_a_loopback_address_requires_no_users(tmp_path: Path, listen: str) -> None:
    require_safe_listen(read_settings(tmp_path, overrides={"http.listen": listen}), lambda: False)


@pytest.mark.parametrize(
    "listen", [":5000", "0.0.0.0:5000", "[::]:5000", "10.0.0.1:5000", "registry:5000"]
)
def test_other_addresses_require_users_or_open_mode(tmp_path: Path, listen: str) -> None:
    reachable = {"http.listen": listen}
    for mode in ("", "token"):
        given = read_settings(tmp_path, overrides=reachable | ({"auth.mode": mode} if mode else {}))
        with pytest.raises(ConfigError) as refused:
            require_safe_listen(given, lambda: False)
        for way in (
            f"moorage user add NAME --admin --data {tmp_path}",
            f"moorage serve --listen {listen} --data {tmp_path}",
            'auth.mode = "none"',
            "MOORAGE_AUTH__MODE=none",
        ):
            assert way in refused.value.message
        require_safe_listen(given, lambda: True)
    require_safe_listen(
        read_settings(tmp_path, overrides=reachable | {"auth.mode": "none"}), _never
    )


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
def test_whether_passwords_are_sent_in_clear(
    tmp_path: Path, given: dict[str, str], *, readable: bool
) -> None:
    read = read_settings(tmp_path, overrides={"http.listen": ":5000", **given})
    assert sends_passwords_in_clear(read) is readable
    if read.auth.mode != "none" and read.http.listen == ":5000":
        with pytest.raises(ConfigError) as refused:
            require_safe_listen(read, lambda: False)
        for remedy in ("tls_cert", "trusted_proxies", "external_url"):
            assert (remedy in refused.value.message) is readable
