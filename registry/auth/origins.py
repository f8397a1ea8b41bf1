"""Where a request came from, for limits and the books."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address


@dataclass(frozen=True, slots=True)
class Origin:
    """The client's address and the request's id; both empty for the command line."""

    address: str = ""
    request_id: str = ""

    @property
    def network(self) -> str:
        """What limits count: the address, or the /64 of IPv6, which one household has whole."""
        try:
            address = ip_address(self.address)
        except ValueError:
            return self.address
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped:
                return str(address.ipv4_mapped)
            return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
        return str(address)
