"""A limited number of slots for connections, with eviction of idle ones."""

import enum
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol


class Refusal(enum.Enum):
    """The limit that leaves no slot for a connection."""

    SERVER = enum.auto()
    ADDRESS = enum.auto()


class Member(Protocol):
    """An open connection."""

    def check_deadlines(self, now: float) -> None: ...
    def give_way(self) -> None: ...


class Slot:
    """The slot of one connection, from its accept until it is closed.

    `refusal` is set if the connection is in the reserve: the limit that it exceeds.
    """

    __slots__ = ("idle", "member", "network", "places", "refusal")

    def __init__(self, places: "Places", network: str, refusal: Refusal | None) -> None:
        self.places = places
        self.network = network
        self.refusal = refusal
        self.member: Member | None = None
        self.idle = False


class Places:
    """At most `total` slots, and `per_network` for each network; 0 means no limit.

    All operations take constant time, regardless of the number of connections and networks.
    """

    def __init__(self, total: int, per_network: int) -> None:
        self._total = total
        self._per_network = per_network
        self._slots: dict[Slot, None] = {}
        self._counts: dict[str, int] = {}
        # OrderedDict, because in a plain dict finding the first entry is slow after many removals.
        self._idle: dict[str, OrderedDict[Slot, None]] = {}
        self._by_idle: list[OrderedDict[str, None]] = []
        """At index n, the networks with n + 1 idle connections."""

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def make_room(self, network: str) -> Refusal | None:
        """Close an idle connection if another one of `network` needs its slot.

        Returns None if there is a free slot, else the limit that was reached.
        """
        if network and self._per_network and self._counts.get(network, 0) >= self._per_network:
            return None if self._evict(network) else Refusal.ADDRESS
        if len(self._slots) >= self._total and not self.evict_idle():
            return Refusal.SERVER
        return None

    def take(self, network: str, refusal: Refusal | None = None) -> Slot:
        """Take a slot, after `make_room`."""
        slot = Slot(self, network, refusal)
        self._slots[slot] = None
        self._counts[network] = self._counts.get(network, 0) + 1
        return slot

    def release(self, slot: Slot) -> None:
        """Release a slot. It may be released more than once."""
        if slot in self._slots:
            self.set_busy(slot)
            del self._slots[slot]
            self._counts[slot.network] -= 1
            if not self._counts[slot.network]:
                del self._counts[slot.network]

    def set_idle(self, slot: Slot) -> None:
        """Mark the connection as idle, the last in the order of eviction."""
        if slot in self._slots and not slot.idle:
            slot.idle = True
            idle = self._idle.setdefault(slot.network, OrderedDict())
            self._move(slot.network, len(idle), len(idle) + 1)
            idle[slot] = None

    def renew_idle(self, slot: Slot) -> None:
        """Make an idle connection the last in the order of eviction of its network."""
        if slot.idle:
            self._idle[slot.network].move_to_end(slot)

    def set_busy(self, slot: Slot) -> None:
        """Mark the connection as busy."""
        if slot.idle:
            slot.idle = False
            idle = self._idle[slot.network]
            self._move(slot.network, len(idle), len(idle) - 1)
            del idle[slot]
            if not idle:
                del self._idle[slot.network]

    def evict_idle(self) -> bool:
        """Close the longest idle connection of the network that has the most idle ones.

        Returns False if no connection is idle.
        """
        return bool(self._by_idle) and self._evict(next(iter(self._by_idle[-1])))

    def _evict(self, network: str) -> bool:
        slot = next(iter(self._idle.get(network, ())), None)
        if slot is None or slot.member is None:
            return False
        slot.member.give_way()
        self.release(slot)
        return True

    def _move(self, network: str, before: int, after: int) -> None:
        if before:
            del self._by_idle[before - 1][network]
        if after:
            if after > len(self._by_idle):
                self._by_idle.append(OrderedDict())
            self._by_idle[after - 1][network] = None
        if self._by_idle and not self._by_idle[-1]:
            self._by_idle.pop()
