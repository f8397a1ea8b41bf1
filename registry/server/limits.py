"""Limits on the resources of one client, of one address and of all clients together."""

from msgspec import Struct

from registry.units import Network


class ServerLimits(Struct, frozen=True):
    """The limits of a server. Times are in seconds, sizes in bytes.

    `connections` is the maximum number of open connections of a process, `per_address` that of one
    client address; 0 means no limit. `trusted_proxies` have no limit of their own.
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
    """The total size of all incomplete request heads, in bytes."""
    long_query_paths: tuple[bytes, ...] = ()
    """Paths whose GET requests may have a target of `head.MAX_LONG_TARGET` bytes."""
