"""A linearizability checker for the history of a register.

Wing and Gong's search (1993): take any operation that started before every other remaining one
ended, apply its effect, and continue with the rest. With Lowe's memory (2017): each pair of a set
of completed operations and the resulting value is examined once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["put", "swap", "get", "delete", "drop"]


@dataclass(frozen=True)
class Operation:
    """An operation of one client on the register, with its start, its end and its result.

    `put` sets `value`. `swap` sets `value` if the register held `seen`. `get` read `seen`. `delete`
    empties the register. `drop` empties the register if it holds `value`. `done` is whether the
    answer reported an effect, or None without an answer.
    """

    client: int
    kind: Kind
    start: int
    end: float = math.inf
    value: str | None = None
    seen: str | None = None
    done: bool | None = True

    def run(self, held: str | None) -> list[str | None]:
        """Return the possible values afterwards. The list is empty if the answer is wrong."""
        if self.kind == "get":
            return [held] if held == self.seen or self.done is None else []
        possible = {
            "put": True,
            "swap": held == self.seen,
            "delete": held is not None,
            "drop": self.done is not False,
        }[self.kind]
        emptied = None if self.kind == "delete" or held == self.value else held
        after = emptied if self.kind in {"delete", "drop"} else self.value
        if self.done is None:
            return [after if possible else held]
        if self.done is not possible:
            return []
        return [after if possible else held]


def find_order(history: Sequence[Operation]) -> list[Operation]:
    """Return the operations in an order that explains every answer.

    Raises AssertionError with the unexplained operations if there is no such order.
    """
    operations = sorted(history, key=lambda operation: operation.start)
    answered = sum(1 << i for i, o in enumerate(operations) if o.done is not None)
    tried: set[tuple[int, str | None]] = set()
    best = 0
    # Completed operations as bits, the resulting value, and the order of the operations.
    waiting: list[tuple[int, str | None, tuple[int, ...]]] = [(0, None, ())]
    while waiting:
        done, held, order = waiting.pop()
        if done & answered == answered:
            return [operations[i] for i in order]
        if (done, held) in tried:
            continue
        tried.add((done, held))
        best = max(best, done, key=int.bit_count)
        for i in reversed(_list_next(operations, done)):
            waiting.extend((done | 1 << i, after, (*order, i)) for after in operations[i].run(held))
    rest = [operations[i] for i in _list_next(operations, best)]
    raise AssertionError(f"no order explains the answers to {rest}")


def _list_next(operations: Sequence[Operation], done: int) -> list[int]:
    """Return the remaining operations that started before any other remaining one ended."""
    coming: list[int] = []
    first_end = math.inf
    for i, operation in enumerate(operations):
        if done >> i & 1:
            continue
        if operation.start > first_end:
            break
        coming.append(i)
        first_end = min(first_end, operation.end)
    return [i for i in coming if operations[i].start <= first_end]
