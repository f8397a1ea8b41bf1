"""Client addresses, for rate limits and the audit log."""

from ipaddress import IPv6Address, ip_address

from msgspec import Struct


class ClientAddress(Struct, frozen=True):
    """The client address and the request ID, both empty for the command line."""

    address: str = ""
    request_id: str = ""

    @property
    def rate_limit_key(self) -> str:
        """The key for limits: the address, or the /64 of an IPv6 address (one household)."""
        try:
            address = ip_address(self.address)
        except ValueError:
            return self.address
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped:
                return str(address.ipv4_mapped)
            return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
        return str(address)
