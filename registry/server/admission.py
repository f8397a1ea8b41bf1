"""Which connections are open, whose they are, and which gives way when there are too many."""

import asyncio
import enum
from ipaddress import ip_address
from typing import Protocol

from registry.auth.origins import Origin
from registry.server.limits import ServerLimits
from registry.server.partial_heads import PartialHeads

RESERVE = 32
"""Connections beyond the limits: they are told why they are refused, and may ask for health."""

SWEEP = 1.0
"""Seconds between two checks of all deadlines."""


class Refusal(enum.Enum):
    """Why a connection of the reserve is refused."""

    SERVER = enum.auto()
    ADDRESS = enum.auto()


class Member(Protocol):
    """An open connection."""

    def check_deadlines(self, now: float) -> None: ...
    def give_way(self) -> None: ...


class Slot:
    """The place of one connection in the limits, from its accept until it is closed."""

    __slots__ = ("idle", "member", "network", "refusal")

    def __init__(self, network: str, refusal: Refusal | None) -> None:
        self.network = network
        self.refusal = refusal
        self.member: Member | None = None
        self.idle: dict[Slot, None] | None = None


class Admission:
    """The table of connections of a process.

    A connection without a request in progress is idle: the one that has been idle longest is closed
    when another client needs its place, so that silent clients never keep others out.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.heads = PartialHeads(limits.heads)
        self._slots: dict[Slot, None] = {}
        self._idle: dict[str, dict[Slot, None]] = {}
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._slots)

    def admit(self, address: str) -> Slot | None:
        """Return a place for a new connection; None if not even the reserve has one."""
        network = self._find_network(address)
        limits = self.limits
        refusal = None
        if network and limits.per_address and self._counts.get(network, 0) >= limits.per_address:
            refusal = None if self._evict(network) else Refusal.ADDRESS
        if refusal is None and len(self._slots) >= limits.connections and not self.evict_idle():
            refusal = Refusal.SERVER
        if len(self._slots) >= limits.connections + RESERVE:
            return None
        slot = Slot(network, refusal)
        self._slots[slot] = None
        self._counts[network] = self._counts.get(network, 0) + 1
        return slot

    def release(self, slot: Slot) -> None:
        """Give up the place of a connection that has been closed; more than once is no error."""
        if slot in self._slots:
            self.set_busy(slot)
            del self._slots[slot]
            self._counts[slot.network] -= 1
            if not self._counts[slot.network]:
                del self._counts[slot.network]

    def set_idle(self, slot: Slot) -> None:
        """Let the connection give way to others from now on, after those that were idle before."""
        slot.idle = self._idle.setdefault(slot.network, {})
        slot.idle[slot] = None

    def set_busy(self, slot: Slot) -> None:
        """Keep the connection: it has a request in progress."""
        idle, slot.idle = slot.idle, None
        if idle is not None:
            del idle[slot]
            if not idle:
                self._idle.pop(slot.network, None)

    def evict_idle(self) -> bool:
        """Close the longest idle connection of the address with most of them; False if none is."""
        if not self._idle:
            return False
        return self._evict(max(self._idle, key=lambda network: len(self._idle[network])))

    def _evict(self, network: str) -> bool:
        slot = next(iter(self._idle.get(network, ())), None)
        if slot is None or slot.member is None:
            return False
        slot.member.give_way()
        self.release(slot)
        return True

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
        for slot in list(self._slots):
            if slot.member is not None:
                slot.member.check_deadlines(now)
