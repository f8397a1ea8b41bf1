"""Rate limits per client address and per principal, in the memory of this process.

Uses GCRA, the generic cell rate algorithm (ITU-T I.371): one number per key says when everything
that the key has used is available again. It is exact, and needs neither windows nor a task that
refills.
"""

import math
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from registry.auth.client_address import ClientAddress
from registry.errors import TooManyRequestsError
from registry.http.memory import MemoryBudget
from registry.http.settings import LimitsSettings

CAPACITY: Final = 65_536
"""The number of keys that one limit remembers, about 10 MiB."""

_KEPT = CAPACITY * 3 // 4
_SECOND = 1_000_000_000
_MINUTE = 60


class RateLimit:
    """A rate limit for each key: at most `burst` at once, and `rate` per second in the long run."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Use `clock`, which is in nanoseconds and never goes back."""
        # An integer, because sums of floats would sometimes refuse the last request of a burst.
        self._spacing = math.ceil(_SECOND / rate)
        self._depth = burst * self._spacing
        self._clock = clock
        self._free_at: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of keys that are remembered."""
        return len(self._free_at)

    def has(self, key: str) -> bool:
        """Return whether a unit is available."""
        now = self._clock()
        return max(now, self._free_at.get(key, now)) + self._spacing - self._depth <= now

    def take(self, key: str) -> float:
        """Use one unit and return 0.0; if there is none, return the seconds until there is."""
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
        """Drop keys that are fully available again, and then those that are nearly so.

        To have one key dropped, a client must use up more with each of tens of thousands of others.
        """
        used = [item for item in self._free_at.items() if item[1] > now]
        if len(used) > _KEPT:
            used = sorted(used, key=itemgetter(1))[-_KEPT:]
        self._free_at = dict(used)


class Limits:
    """The rate limits and memory budgets from the settings."""

    def __init__(
        self, settings: LimitsSettings, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.bodies = MemoryBudget(settings.request_memory)
        self.answers = MemoryBudget(settings.response_memory)
        self._requests = _Limit("requests", settings.requests_per_second, 1, clock)
        self._uploads = _Limit("uploads", settings.uploads_per_minute, _MINUTE, clock)

    def check_request(self, address: str | None, principal: str | None) -> None:
        """Count a request; raise TooManyRequestsError. None is not limited."""
        self._requests.check(address, principal)

    def admission_of(self, principal: str | None) -> Callable[[str | None], bool] | None:
        """Return a function that counts a request of the principal, from an address.

        If a limit does not allow the request, the function counts nothing and returns False. The
        result is None without limits.
        """
        if not self._requests.is_set:
            return None
        return lambda address: self._requests.try_take(address, principal)

    def check_upload(self, address: str | None, principal: str | None) -> None:
        """Count the start of an upload; as above."""
        self._uploads.check(address, principal)


class _Limit:
    """A limit of `most` in `seconds` for each address and each principal; 0 means no limit."""

    def __init__(self, what: str, most: int, seconds: int, clock: Callable[[], int]) -> None:
        self._what = what
        # Separate, so that many addresses cannot displace principals.
        self._addresses = RateLimit(most / seconds, most, clock) if most else None
        self._principals = RateLimit(most / seconds, most, clock) if most else None

    @property
    def is_set(self) -> bool:
        return self._addresses is not None

    def check(self, address: str | None, principal: str | None) -> None:
        if self._addresses is not None and address is not None:
            self._refuse(self._addresses.take(ClientAddress(address).rate_limit_key), "address")
        if self._principals is not None and principal is not None:
            self._refuse(self._principals.take(principal), "account")

    def try_take(self, address: str | None, principal: str | None) -> bool:
        """Count one if both limits allow it; otherwise return False and count nothing."""
        used = []
        if self._addresses is not None and address is not None:
            used.append((self._addresses, ClientAddress(address).rate_limit_key))
        if self._principals is not None and principal is not None:
            used.append((self._principals, principal))
        if not all(limit.has(key) for limit, key in used):
            return False
        for limit, key in used:
            limit.take(key)
        return True

    def _refuse(self, wait: float, whose: str) -> None:
        if wait > 0:
            seconds = math.ceil(wait)
            message = f"too many {self._what} from this {whose}; try again in {seconds} s"
            raise TooManyRequestsError(message, seconds)
