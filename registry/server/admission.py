"""Admission control: the open connections, and which one to close if there are too many."""

import asyncio
from ipaddress import ip_address

from registry.auth.client_address import ClientAddress
from registry.server.limits import ServerLimits
from registry.server.partial_heads import PartialHeads
from registry.server.places import Places, Slot

RESERVE = 32
"""The number of connections beyond the limits. They get a refusal, or the health endpoints."""

RESERVE_PER_ADDRESS = 4
"""The reserve of one address: the rest is left for the health checks of others."""

SWEEP = 1.0
"""The interval between two checks of all deadlines, in seconds."""


class Admission:
    """The table of connections of a process.

    A connection without a request in progress is idle. If another client needs a slot, the
    connection that has been idle longest is closed, so that silent clients never block others.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.heads = PartialHeads(limits.heads)
        # No address gets more than half, whatever is configured: there may be few descriptors.
        half = max(1, limits.connections // 2)
        per_address = limits.per_address and min(limits.per_address, half)
        self._places = Places(limits.connections, per_address)
        self._reserve = Places(RESERVE, RESERVE_PER_ADDRESS)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places) + len(self._reserve)

    def admit(self, address: str) -> Slot | None:
        """Return a slot for a new connection; None if even the reserve has none."""
        network = self._find_network(address)
        refusal = self._places.make_room(network)
        if refusal is None:
            return self._places.take(network)
        if self._reserve.make_room(network) is None:
            return self._reserve.take(network, refusal)
        return None

    def release(self, slot: Slot) -> None:
        """Release the slot of a closed connection. It may be released more than once."""
        slot.places.release(slot)

    def set_idle(self, slot: Slot) -> None:
        """Mark the connection as idle, the last in the order of eviction."""
        slot.places.set_idle(slot)

    def renew_idle(self, slot: Slot) -> None:
        """Make an idle connection the last in the order of eviction, after a request."""
        slot.places.renew_idle(slot)

    def set_busy(self, slot: Slot) -> None:
        """Mark the connection as busy: it has a request in progress."""
        slot.places.set_busy(slot)

    def evict_idle(self) -> bool:
        """Close the longest idle connection of the address that has the most idle ones.

        Returns False if no connection is idle.
        """
        return self._places.evict_idle() or self._reserve.evict_idle()

    def _find_network(self, address: str) -> str:
        """Return the key that is limited as one client; empty if it has no limit of its own."""
        plain = ClientAddress(address.partition("%")[0]).rate_limit_key
        try:
            parsed = ip_address(plain.removesuffix("/64"))
        except ValueError:
            return ""  # a Unix socket
        if any(parsed in network for network in self.limits.trusted_proxies):
            return ""
        return plain

    # Deadlines

    def start(self) -> None:
        """Start to check the deadlines of all connections."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP, self._sweep, loop)

    def stop(self) -> None:
        """Stop checking deadlines."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        # Schedule the next sweep first, so that an exception in one connection does not end the
        # checks of others.
        self._timer = loop.call_later(SWEEP, self._sweep, loop)
        now = loop.time()
        for slot in [*self._places, *self._reserve]:
            if slot.member is not None:
                slot.member.check_deadlines(now)
