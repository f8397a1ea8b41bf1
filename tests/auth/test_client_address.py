"""The client addresses that rate limits count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.client_address import ClientAddress


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("", ""),
        ("unix:", "unix:"),
        ("192.0.2.7:80", "192.0.2.7:80"),
        ("192.0.2", "192.0.2"),
    ],
)
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert ClientAddress(address).rate_limit_key == network


def test_the_command_line_has_none() -> None:
    assert ClientAddress() == ClientAddress("", "")


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_one_household_is_one_network(address: object, host: int) -> None:
    begin = int(address) >> 64 << 64  # type: ignore[call-overload]
    if begin >> 32 == 0xFFFF:
        return
    other = ":".join(f"{(begin | host) >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))
    if not other.startswith("0:0:0:0:0:ffff:"):
        assert (
            ClientAddress(str(address)).rate_limit_key == ClientAddress(other).rate_limit_key
            or begin == 0
        )


@given(st.ip_addresses(v=4))
def test_both_spellings_are_one_address(address: object) -> None:
    assert (
        ClientAddress(f"::ffff:{address}").rate_limit_key
        == ClientAddress(str(address)).rate_limit_key
        == str(address)
    )


@given(st.text())
def test_no_text_crashes(text: str) -> None:
    assert isinstance(ClientAddress(text).rate_limit_key, str)
