"""What one client, one address and all clients together may take."""

from dataclasses import dataclass

from registry.units import Network


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Times in seconds, sizes in bytes.

    `connections` is the number of open connections of a process, `per_address` of one client
    address, 0 for any number; `trusted_proxies` have no limit of their own.
    """

    connections: int = 8192
    per_address: int = 2048
    trusted_proxies: tuple[Network, ...] = ()
    keep_alive: float = 75.0
    head_timeout: float = 10.0
    write_window: float = 30.0
    write_minimum: int = 30 << 10
    linger: float = 1.0
    heads: int = 32 << 20
    """Bytes of all request heads that have not arrived completely."""
    long_query_paths: tuple[bytes, ...] = ()
    """Paths whose GET requests may have a target of `head.MAX_LONG_TARGET` bytes."""
