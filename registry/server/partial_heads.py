"""Request heads that have arrived in part: what they take together, and which give way."""

import heapq
from collections.abc import Hashable
from typing import Protocol

FREED = 32
"""The part of the budget that is freed at once is 1 / FREED: what to free is not searched often."""


class Receiver(Hashable, Protocol):
    """A connection that receives a head."""

    @property
    def network(self) -> str:
        """What is limited as one client."""

    def refuse_head(self) -> None:
        """Answer that the server has too much to do, and drop the head."""


class PartialHeads:
    """The heads of all connections of a process that have not arrived completely."""

    def __init__(self, limit: int) -> None:
        """`limit` is the budget in bytes."""
        self.size = 0
        self._limit = limit
        self._sizes: dict[Receiver, int] = {}

    def set_size(self, receiver: Receiver, size: int) -> None:
        """Note how many bytes of a head are kept; 0: none any more."""
        self.size += size - self._sizes.pop(receiver, 0)
        if size:
            self._sizes[receiver] = size

    def make_room(self) -> None:
        """Refuse heads if all together exceed the budget: the largest of the network whose heads
        take most, so that a client that sends one head is not refused for what others keep.
        """
        if self.size <= self._limit:
            return
        by_network: dict[str, list[Receiver]] = {}
        totals: dict[str, int] = {}
        for receiver in sorted(self._sizes, key=self._sizes.__getitem__):
            by_network.setdefault(receiver.network, []).append(receiver)
            totals[receiver.network] = totals.get(receiver.network, 0) + self._sizes[receiver]
        heap = [(-total, network) for network, total in totals.items()]
        heapq.heapify(heap)
        while self.size > self._limit - self._limit // FREED:
            total, network = heapq.heappop(heap)
            receiver = by_network[network].pop()
            size = self._sizes[receiver]
            receiver.refuse_head()
            self.set_size(receiver, 0)
            heapq.heappush(heap, (total + size, network))
