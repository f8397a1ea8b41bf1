"""Which addresses of other servers may be called. Source: IANA's special-purpose registries.

A name that somebody else chose must not lead into the network that the registry stands in:
every address it has is judged, and an address that carries another is judged by the inner one.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]


def _networks(*texts: str) -> Networks:
    return tuple(ip_network(text) for text in texts)


# Written out, because what `ipaddress` calls global differs between releases of Python.
_PRIVATE = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
    "::1/128", "fc00::/7",
)  # fmt: skip
# Link-local is no private network: there the machines of clouds find their credentials.
_SPECIAL = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)  # fmt: skip
_GLOBAL = _networks("0.0.0.0/0", "2000::/3")
_CARRIERS = _networks("::ffff:0:0/96", "64:ff9b::/96")  # IPv4-mapped and NAT64


def parse_address(text: str) -> Address:
    """Return an address, the inner one where an IPv6 address carries an IPv4 address."""
    address = ip_address(text)
    if _within(address, _CARRIERS):
        return IPv4Address(address.packed[-4:])
    return address


def is_private(address: Address) -> bool:
    """Tell whether an address is of this machine or of a private network."""
    return _within(address, _PRIVATE)


def is_public(address: Address) -> bool:
    """Tell whether an address is of the internet."""
    return _within(address, _GLOBAL) and not _within(address, _PRIVATE + _SPECIAL)


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
