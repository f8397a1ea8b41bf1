"""How often one address or one principal may ask, counted in the memory of this process.

By GCRA, the generic cell rate algorithm (ITU-T I.371): of each key, one number says when all that
it has used will be free again. It is exact, and needs neither windows nor a task that refills.
"""

import math
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from registry.api.memory import MemoryBudget
from registry.api.settings import ApiSettings
from registry.auth.origins import Origin
from registry.errors import TooManyRequestsError

CAPACITY: Final = 65_536
"""Keys that one limit remembers, about 10 MiB."""

_KEPT = CAPACITY * 3 // 4
_SECOND = 1_000_000_000
_MINUTE = 60


class RateLimit:
    """At most `burst` at once, and `rate` a second in the long run, for each key."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`clock` gives nanoseconds and never goes back."""
        # Whole, because sums of fractions would now and then refuse the last of a burst.
        self._spacing = math.ceil(_SECOND / rate)
        self._depth = burst * self._spacing
        self._clock = clock
        self._free_at: dict[str, int] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._free_at)

    def take(self, key: str) -> float:
        """Use one: 0.0, or the seconds until there will be one, and then nothing is used."""
        now = self._clock()
        free_at = max(now, self._free_at.get(key, now)) + self._spacing
        wait = free_at - self._depth - now
        if wait > 0:
            return wait / _SECOND
        if len(self._free_at) >= CAPACITY and key not in self._free_at:
            self._forget(now)
        self._free_at[key] = free_at
        return 0.0

    def _forget(self, now: float) -> None:
        """Make room: what is free again says nothing, and what nearly is says least.

        So whoever wants a key forgotten must use up more with each of tens of thousands of others.
        """
        used = [item for item in self._free_at.items() if item[1] > now]
        if len(used) > _KEPT:
            used = sorted(used, key=itemgetter(1))[-_KEPT:]
        self._free_at = dict(used)


class Limits:
    """The limits that settings ask for."""

    def __init__(self, settings: ApiSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.bodies = MemoryBudget(settings.large_bodies)
        self.answers = MemoryBudget(settings.large_answers)
        self._requests = _Limit("requests", settings.requests, 1, clock)
        self._uploads = _Limit("uploads", settings.uploads, _MINUTE, clock)

    def check_request(self, address: str | None, principal: str | None) -> None:
        """Count a request; TooManyRequestsError. What is None is not limited."""
        self._requests.check(address, principal)

    def check_upload(self, address: str | None, principal: str | None) -> None:
        """Count an upload that is to begin; as above."""
        self._uploads.check(address, principal)


class _Limit:
    """`most` in `seconds` of each address and of each principal; 0 for any number."""

    def __init__(self, what: str, most: int, seconds: int, clock: Callable[[], int]) -> None:
        self._what = what
        # Apart, so that many addresses cannot make it forget principals.
        self._addresses = RateLimit(most / seconds, most, clock) if most else None
        self._principals = RateLimit(most / seconds, most, clock) if most else None

    def check(self, address: str | None, principal: str | None) -> None:
        if self._addresses is not None and address is not None:
            self._refuse(self._addresses.take(Origin(address).network), "address")
        if self._principals is not None and principal is not None:
            self._refuse(self._principals.take(principal), "account")

    def _refuse(self, wait: float, whose: str) -> None:
        if wait > 0:
            seconds = math.ceil(wait)
            message = f"too many {self._what} from this {whose}; try again in {seconds} s"
            raise TooManyRequestsError(message, seconds)
