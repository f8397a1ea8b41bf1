"""Which connections are open, whose they are, and which gives way when there are too many."""

import asyncio
from ipaddress import ip_address

from registry.auth.origins import Origin
from registry.server.limits import ServerLimits
from registry.server.partial_heads import PartialHeads
from registry.server.places import Places, Slot

RESERVE = 32
"""Connections beyond the limits: they are told why they are refused, and may ask for health."""

RESERVE_PER_ADDRESS = 4
"""Those of one address: a crowd that is refused leaves places to health checks of others."""

SWEEP = 1.0
"""Seconds between two checks of all deadlines."""


class Admission:
    """The table of connections of a process.

    A connection without a request in progress is idle: the one that has been idle longest is closed
    when another client needs its place, so that silent clients never keep others out.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.heads = PartialHeads(limits.heads)
        # No address has more than half, whatever is configured: descriptors may be few.
        half = max(1, limits.connections // 2)
        per_address = limits.per_address and min(limits.per_address, half)
        self._places = Places(limits.connections, per_address)
        self._reserve = Places(RESERVE, RESERVE_PER_ADDRESS)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places) + len(self._reserve)

    def admit(self, address: str) -> Slot | None:
        """Return a place for a new connection; None if not even the reserve has one."""
        network = self._find_network(address)
        refusal = self._places.make_room(network)
        if refusal is None:
            return self._places.take(network)
        if self._reserve.make_room(network) is None:
            return self._reserve.take(network, refusal)
        return None

    def release(self, slot: Slot) -> None:
        """Give up the place of a connection that has been closed; more than once is no error."""
        slot.places.release(slot)

    def set_idle(self, slot: Slot) -> None:
        """Let the connection give way to others from now on, after those that were idle before."""
        slot.places.set_idle(slot)

    def set_busy(self, slot: Slot) -> None:
        """Keep the connection: it has a request in progress."""
        slot.places.set_busy(slot)

    def evict_idle(self) -> bool:
        """Close the longest idle connection of the address with most of them; False if none is."""
        return self._places.evict_idle() or self._reserve.evict_idle()

    def _find_network(self, address: str) -> str:
        """Return what is limited as one client; empty for what has no limit of its own."""
        plain = Origin(address.partition("%")[0]).network
        try:
            parsed = ip_address(plain.removesuffix("/64"))
        except ValueError:
            return ""  # a Unix socket
        if any(parsed in network for network in self.limits.trusted_proxies):
            return ""
        return plain

    # Deadlines

    def start(self) -> None:
        """Check the deadlines of all connections from now on."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP, self._sweep, loop)

    def stop(self) -> None:
        """Check them no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        # First, so that a fault in one connection leaves the others their deadlines.
        self._timer = loop.call_later(SWEEP, self._sweep, loop)
        now = loop.time()
        for slot in [*self._places, *self._reserve]:
            if slot.member is not None:
                slot.member.check_deadlines(now)
