"""Limits on failed sign-ins.

Failures are rows, so that all workers and replicas count together. They are counted per address and
account: a user can still sign in if another client at the same address keeps failing.

This leaves two ways to guess passwords, which are slowed down instead. An account with too many
failures from all addresses is not locked, because then anybody could lock out any user: each
address gets only a few tries at it. An address with too many failures at all accounts gets only a
few tries at each of them. Its passwords are checked one at a time, and after each wrong one it has
to pause for a time that grows with its failures.

Source: OWASP authentication cheat sheet.
"""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from msgspec import Struct, field

from registry import clock
from registry.auth.audit_log import Actor, Event, record
from registry.auth.client_address import ClientAddress
from registry.errors import TooManyRequestsError
from registry.metadata.access import failed_sign_ins
from registry.metadata.access.failed_sign_ins import FailureCounts
from registry.metadata.engine.transaction import Transaction

WINDOW = 300.0
"""The time for which a failure counts, in seconds."""

FEW = 3
"""Tries that an address has at an account if the account is under attack or the address attacks."""

LINE = 16
"""The number of passwords of one address that may wait to be checked one at a time."""

_SECOND = 1_000_000
_MOST_WAITING = 65_536

_Pair = tuple[str, str]


class _Queue(Struct):
    """The passwords of one address, checked one at a time. `free_at` is monotonic time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0
    free_at: float = 0.0


class Turn(Struct):
    """One check of a password. After a correct one, the next check starts without a pause."""

    is_right: bool = False


class SignInLimiter:
    """Counts failed sign-ins by address and account.

    `most` is the limit within the window; 0 means no limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: OrderedDict[_Pair, int] = OrderedDict()
        self._trying: Counter[str | _Pair] = Counter()
        self._queues: dict[str, _Queue] = {}

    @contextmanager
    def attempt(self, origin: ClientAddress, account: str) -> Iterator[None]:
        """Count an attempt as a failure while it is in progress.

        `account` is a keyed hash. Raises TooManyRequestsError without a database query if the end
        of the wait is known.
        """
        pair = (origin.rate_limit_key, account)
        until = self._waiting.get(pair, 0)
        if until > clock.now_us():
            raise _wait(until)
        if self._most and self._trying[pair] >= self._most:
            raise _wait(clock.now_us() + _SECOND)
        self._trying.update((origin.rate_limit_key, pair))
        try:
            yield
        finally:
            for key in (origin.rate_limit_key, pair):
                self._trying[key] -= 1
                if not self._trying[key]:
                    del self._trying[key]

    def check(self, tx: Transaction, origin: ClientAddress, account: str) -> float | None:
        """Return the seconds that the address pauses after each wrong password, None for no limit.

        Raises TooManyRequestsError if the address has no tries left at the account.
        """
        if not self._most:
            return None
        since = tx.now - int(WINDOW * _SECOND)
        pair = (origin.rate_limit_key, account)
        here = failed_sign_ins.count(tx, since, address=origin.rate_limit_key, account=account)
        from_address = failed_sign_ins.count(tx, since, address=origin.rate_limit_key)
        attacks = from_address.count + self._trying[origin.rate_limit_key] > self._most
        attacked = failed_sign_ins.count(tx, since, account=account).count >= self._most
        most = min(FEW, self._most) if attacks or attacked else self._most
        if here.count >= most:
            self._remember(pair, _end(here))
            raise _wait(_end(here))
        if here.count + self._trying[pair] > most:
            raise _wait(clock.now_us() + _SECOND)  # attempts in progress may have failed by then
        return from_address.count / self._most if attacks else None

    @asynccontextmanager
    async def turn(self, origin: ClientAddress, pause: float | None) -> AsyncIterator[Turn]:
        """Wait until the address may have a password checked. `pause` is the result of `check`.

        Raises TooManyRequestsError if too many passwords wait.
        """
        turn = Turn()
        if pause is None:
            yield turn
            return
        queue = self._queues.setdefault(origin.rate_limit_key, _Queue())
        if queue.length >= LINE:
            raise _wait(clock.now_us() + math.ceil(max(pause, 1.0)) * _SECOND)
        queue.length += 1
        try:
            async with queue.lock:
                await asyncio.sleep(max(0.0, queue.free_at - time.monotonic()))
                try:
                    yield turn
                finally:
                    if not turn.is_right:
                        queue.free_at = time.monotonic() + pause
        finally:
            queue.length -= 1
            if not queue.length:
                asyncio.get_running_loop().call_later(pause, self._drop, origin.rate_limit_key)

    def _drop(self, address: str) -> None:
        queue = self._queues.get(address)
        if queue is not None and not queue.length and queue.free_at <= time.monotonic():
            del self._queues[address]

    def fail(self, tx: Transaction, origin: ClientAddress, account: str, known: str | None) -> None:
        """Count a failure and record it in the audit log; `known` is the account, if it exists.

        No other name is recorded: people type passwords into the field for the name.
        """
        failed_sign_ins.delete_before(tx, tx.now - int(WINDOW * _SECOND))
        failed_sign_ins.insert(tx, origin.rate_limit_key, account)
        record(tx, Actor("-", origin), Event.SIGN_IN_FAIL, known or "(unknown)")

    def _remember(self, pair: _Pair, until: int) -> None:
        self._waiting[pair] = until
        self._waiting.move_to_end(pair)
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)


def _end(failures: FailureCounts) -> int:
    """Return the time at which the oldest failure expires, in microseconds."""
    return failures.oldest + int(WINDOW * _SECOND)


def _wait(until: int) -> TooManyRequestsError:
    seconds = max(1, -(-(until - clock.now_us()) // _SECOND))
    return TooManyRequestsError("too many failed sign-ins; wait before the next attempt", seconds)
