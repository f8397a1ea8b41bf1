"""A memory budget for incomplete request heads of all connections."""

import heapq
from collections.abc import Hashable
from typing import Protocol

FREED = 32
"""One search for heads to refuse frees 1 / FREED of the budget, so that searches are rare."""


class Receiver(Hashable, Protocol):
    """A connection that receives a head."""

    @property
    def network(self) -> str:
        """The key that is limited as one client."""

    def refuse_head(self) -> None:
        """Respond that the server is overloaded, and drop the head."""


class PartialHeads:
    """The incomplete request heads of all connections of a process."""

    def __init__(self, limit: int) -> None:
        """Use `limit` as the budget, in bytes."""
        self.size = 0
        self._limit = limit
        self._sizes: dict[Receiver, int] = {}

    def set_size(self, receiver: Receiver, size: int) -> None:
        """Record the number of buffered bytes of a head; 0 if there are none."""
        self.size += size - self._sizes.pop(receiver, 0)
        if size:
            self._sizes[receiver] = size

    def make_room(self) -> None:
        """Refuse heads while all together exceed the budget.

        The largest head of the network whose heads use most is refused first, so that a client that
        sends one head is not refused because of others.
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
