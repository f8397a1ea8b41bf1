"""How often somebody may be wrong about a password.

Failures are rows, so that all workers and replicas count together. An address that fails too often
waits. An account that fails too often from anywhere is not locked, since then anybody could lock
anyone out: each address gets only a few tries at it. Source: OWASP authentication cheat sheet.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from registry import clock
from registry.auth.books import Actor, Event, note
from registry.auth.origins import Origin
from registry.errors import TooManyRequestsError
from registry.metadata import sign_ins
from registry.metadata.sign_ins import FailureCounts
from registry.metadata.transaction import Transaction

WINDOW = 300.0
"""Seconds for which a failure counts."""

FEW = 3
"""Tries that an address has left at an account that is under attack."""

_SECOND = 1_000_000
_MOST_WAITING = 65_536


class SignInLimiter:
    """Counts failures by address and by account; `most` per address in the window, 0: no limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: OrderedDict[str, int] = OrderedDict()
        self._trying: Counter[str] = Counter()

    @contextmanager
    def attempt(self, origin: Origin) -> Iterator[None]:
        """An attempt at a password, which counts as a failure until it has ended;
        TooManyRequestsError without asking the database where the wait is known.
        """
        address = origin.network
        until = self._waiting.get(address, 0)
        if until > clock.now():
            raise _wait(until)
        if self._most and self._trying[address] >= self._most:
            raise _wait(clock.now() + _SECOND)
        self._trying[address] += 1
        try:
            yield
        finally:
            self._trying[address] -= 1
            if not self._trying[address]:
                del self._trying[address]

    def check(self, tx: Transaction, origin: Origin, account: str) -> None:
        """Raise TooManyRequestsError where a limit is reached; `account` is a keyed hash."""
        if not self._most:
            return
        since = tx.now - int(WINDOW * _SECOND)
        address = origin.network
        from_address = sign_ins.count(tx, since, address=address)
        if from_address.count + self._trying[address] > self._most:
            self._remember(address, _end(from_address))
            raise _wait(_end(from_address))
        if sign_ins.count(tx, since, account=account).count < self._most:
            return
        here = sign_ins.count(tx, since, address=address, account=account)
        if here.count >= FEW:
            raise _wait(_end(here))

    def fail(self, tx: Transaction, origin: Origin, account: str, known: str | None) -> None:
        """Count a failure and write it into the books; `known` is the account, if there is one.

        Any other name is not written down: people type passwords where names belong.
        """
        sign_ins.delete_before(tx, tx.now - int(WINDOW * _SECOND))
        sign_ins.insert(tx, origin.network, account)
        note(tx, Actor("-", origin), Event.SIGN_IN_FAIL, known or "(unknown)")

    def _remember(self, address: str, until: int) -> None:
        self._waiting[address] = until
        self._waiting.move_to_end(address)
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)


def _end(failures: FailureCounts) -> int:
    """When the oldest of the failures no longer counts, in microseconds."""
    return failures.oldest + int(WINDOW * _SECOND)


def _wait(until: int) -> TooManyRequestsError:
    seconds = max(1, -(-(until - clock.now()) // _SECOND))
    return TooManyRequestsError("too many failed sign-ins; wait before the next", seconds)
