"""Whether the history of a register could have come from one operation after the other.

Wing and Gong's search (1993): take any operation that no other one ended before, try its effect, go
on with the rest. With Lowe's memory (2017): a set of operations done and the value they left are
looked at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["put", "swap", "get", "delete", "drop"]


@dataclass(frozen=True)
class Operation:
    """What one client did to the register between two moments, and was told.

    `put` sets `value`. `swap` sets it if the register held `seen`. `get` found `seen`. `delete`
    empties the register. `drop` empties it if it holds `value`. `done`: whether the answer said
    that it had an effect; None where there was no answer.
    """

    client: int
    kind: Kind
    start: int
    end: float = math.inf
    value: str | None = None
    seen: str | None = None
    done: bool | None = True

    def run(self, held: str | None) -> list[str | None]:
        """What the register may hold afterwards; nothing if the answer is wrong."""
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
    """The operations in an order that explains every answer.

    AssertionError with what could not be explained where there is none.
    """
    operations = sorted(history, key=lambda operation: operation.start)
    answered = sum(1 << i for i, o in enumerate(operations) if o.done is not None)
    tried: set[tuple[int, str | None]] = set()
    best = 0
    # Operations done, as bits; the value they left; the order they were done in.
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
    """Those that no operation still to come had ended before."""
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
