"""Addresses that the HTTP client may connect to."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client.addresses import is_private, is_public, parse_address

PUBLIC = ["8.8.8.8", "140.82.121.4", "100.63.255.255", "172.15.0.1", "172.32.0.1", "192.169.0.1",
          "2606:4700::1111", "2001:4860:4860::8888", "64:ff9b::808:808",
          "::ffff:8.8.8.8"]  # fmt: skip
PRIVATE = ["127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
           "100.64.0.1", "100.127.255.255", "::1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1",
           "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"]  # fmt: skip
NEVER = ["0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "239.1.1.1", "240.0.0.1",  # noqa: S104
         "255.255.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
         "::", "fe80::1", "fe80::1%lo", "ff02::1", "2001:db8::1", "2002:7f00:1::", "2001::1",
         "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::a9fe:a9fe", "::127.0.0.1",
         "64:ff9b:1::7f00:1", "fec0::1"]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    address = parse_address(text)
    assert is_public(address)
    assert not is_private(address)


@pytest.mark.parametrize("text", PRIVATE)
def test_private(text: str) -> None:
    address = parse_address(text)
    assert is_private(address)
    assert not is_public(address)


@pytest.mark.parametrize("text", NEVER)
def test_neither(text: str) -> None:
    address = parse_address(text)
    assert not is_private(address)
    assert not is_public(address)


@given(st.ip_addresses())
def test_no_public_address_is_what_python_calls_private(address: object) -> None:
    parsed = parse_address(str(address))
    if is_public(parsed):
        assert ip_address(str(parsed)).is_global
        assert not parsed.is_multicast
