"""Addresses of other servers that may be called. Source: IANA's special-purpose registries.

A host name from an untrusted source must not lead into the registry's own network. All addresses of
a host are checked. An address that embeds another one is checked by the embedded address.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]


def _networks(*texts: str) -> Networks:
    return tuple(ip_network(text) for text in texts)


# Listed here because the definition of global in `ipaddress` differs between Python versions.
_PRIVATE = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
    "::1/128", "fc00::/7",
)  # fmt: skip
# Link-local is not a private network: cloud instances get their credentials there.
_SPECIAL = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)  # fmt: skip
_GLOBAL = _networks("0.0.0.0/0", "2000::/3")
_CARRIERS = _networks("::ffff:0:0/96", "64:ff9b::/96")  # IPv4-mapped and NAT64


def parse_address(text: str) -> Address:
    """Parse an address. Return the embedded one if an IPv6 address embeds an IPv4 address."""
    address = ip_address(text)
    if _within(address, _CARRIERS):
        return IPv4Address(address.packed[-4:])
    return address


def is_private(address: Address) -> bool:
    """Return whether an address belongs to this machine or a private network."""
    return _within(address, _PRIVATE)


def is_public(address: Address) -> bool:
    """Return whether an address is on the internet."""
    return _within(address, _GLOBAL) and not _within(address, _PRIVATE + _SPECIAL)


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
