"""Rate limits allow exactly the configured rate, independent of other clients."""

import json
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import TooManyRequestsError
from registry.http.errors import error_response
from registry.http.rate_limits import CAPACITY, Limits, RateLimit
from registry.http.settings import LimitsSettings

SECOND = 1_000_000_000


@dataclass
class Clock:
    now: int = 12_345 * SECOND

    def __call__(self) -> int:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


# A single limit


def test_a_burst_then_one_at_a_time(clock: Clock) -> None:
    limit = RateLimit(2.0, 3, clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    clock.pass_by(0.25)
    assert limit.take("a") == 0.25
    clock.pass_by(0.25)
    assert [limit.take("a") for _ in range(2)] == [0, 0.5]
    clock.pass_by(3600)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_keys_do_not_share(clock: Clock) -> None:
    limit = RateLimit(1.0, 1, clock)
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    assert limit.take("b") == 0


RATES = st.fractions(min_value="1/100", max_value=1000).map(float)
PAUSES = st.lists(st.integers(0, 2 * SECOND) | st.integers(0, 2000), max_size=80)


@given(RATES, st.integers(1, 20), PAUSES, st.integers(0, 10**18))
def test_no_window_holds_more_than_the_burst_and_the_rate(
    rate: float, burst: int, pauses: list[int], start: int
) -> None:
    clock = Clock(start)
    limit = RateLimit(rate, burst, clock)
    accepted = []
    for pause in pauses:
        clock.now += pause
        if limit.take("a") == 0:
            accepted.append(clock.now)
    for i, first in enumerate(accepted):
        for j, last in enumerate(accepted[i:], 1):
            assert j <= burst + rate * (last - first) / SECOND + 1e-6


@given(RATES, st.integers(1, 20), PAUSES, st.integers(0, 10**18))
def test_who_waits_as_told_is_let_through_and_not_who_waits_less(
    rate: float, burst: int, pauses: list[int], start: int
) -> None:
    clock = Clock(start)
    limit = RateLimit(rate, burst, clock)
    for pause in pauses:
        clock.now += pause
        wait = limit.take("a")
        if wait:
            assert wait <= 1 / rate + 1e-6
            told = round(wait * SECOND)
            clock.now += told - 1
            assert limit.take("a") > 0
            clock.now += 1
            assert limit.take("a") == 0


@given(RATES, st.integers(1, 20), st.integers(0, 10**18))
def test_a_whole_burst_is_let_through_at_once(rate: float, burst: int, start: int) -> None:
    limit = RateLimit(rate, burst, Clock(start))
    assert [limit.take("a") for _ in range(burst)] == [0] * burst
    assert limit.take("a") > 0


# Bounded memory


def test_a_flood_of_keys_does_not_grow_without_end(clock: Clock) -> None:
    limit = RateLimit(0.001, 5, clock)
    for i in range(CAPACITY + CAPACITY // 2):
        limit.take(str(i))
    assert len(limit) <= CAPACITY


def test_what_is_free_again_is_forgotten_first(clock: Clock) -> None:
    limit = RateLimit(1.0, 5, clock)
    for i in range(CAPACITY - 1):
        limit.take(f"idle {i}")
    clock.pass_by(10)
    limit.take("busy")
    limit.take("new")
    assert len(limit) == 2


def test_a_flood_of_keys_does_not_make_it_forget_who_used_more(clock: Clock) -> None:
    limit = RateLimit(0.001, 5, clock)
    for _ in range(5):
        limit.take("victim")
    keys = [str(i) for i in range(2 * CAPACITY)]
    random.Random(1).shuffle(keys)
    for key in keys:
        limit.take(key)
    assert limit.take("victim") > 0


# Configured limits


def refusals(limits: Limits, address: str | None, principal: str | None, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            limits.check_request(address, principal)
        except TooManyRequestsError:
            count += 1
    return count


def test_without_settings_nothing_is_limited(clock: Clock) -> None:
    limits = Limits(LimitsSettings(), clock)
    for _ in range(100):
        limits.check_request("192.0.2.1", "ann")
        limits.check_upload("192.0.2.1", "ann")


def test_an_address_is_limited_whoever_it_says_it_is(clock: Clock) -> None:
    limits = Limits(LimitsSettings(requests_per_second=5), clock)
    for i in range(5):
        limits.check_request("192.0.2.1", f"user {i}")
    with pytest.raises(TooManyRequestsError, match="address"):
        limits.check_request("192.0.2.1", "another")
    limits.check_request("192.0.2.2", "another")


def test_a_principal_is_limited_wherever_she_is(clock: Clock) -> None:
    limits = Limits(LimitsSettings(requests_per_second=5), clock)
    for i in range(5):
        limits.check_request(f"192.0.2.{i}", "ann")
    with pytest.raises(TooManyRequestsError, match="account"):
        limits.check_request("192.0.2.9", "ann")
    limits.check_request("192.0.2.10", "bob")
    limits.check_request("192.0.2.10", None)


def test_a_principal_named_like_an_address_is_not_that_address(clock: Clock) -> None:
    limits = Limits(LimitsSettings(requests_per_second=1), clock)
    limits.check_request("192.0.2.1", None)
    limits.check_request(None, "192.0.2.1")


def test_what_is_not_known_is_not_limited(clock: Clock) -> None:
    assert refusals(Limits(LimitsSettings(requests_per_second=1), clock), None, None, 10) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("peer", "peer", True),
    ],
)
def test_a_client_is_a_network_of_ipv6(clock: Clock, one: str, other: str, same: bool) -> None:
    limits = Limits(LimitsSettings(requests_per_second=1), clock)
    assert refusals(limits, one, None, 1) == 0
    assert refusals(limits, other, None, 1) == same


def test_requests_are_counted_by_the_second_and_uploads_by_the_minute(clock: Clock) -> None:
    limits = Limits(LimitsSettings(requests_per_second=4, uploads_per_minute=4), clock)
    for check, seconds in ((limits.check_request, 1), (limits.check_upload, 60)):
        for _ in range(4):
            check("192.0.2.1", None)
        with pytest.raises(TooManyRequestsError):
            check("192.0.2.1", None)
        clock.pass_by(seconds / 4 - 0.001)
        with pytest.raises(TooManyRequestsError):
            check("192.0.2.1", None)
        clock.pass_by(0.001)
        check("192.0.2.1", None)


def test_the_answer_says_when_to_come_back(clock: Clock) -> None:
    limits = Limits(LimitsSettings(requests_per_second=50, uploads_per_minute=4), clock)
    for _ in range(4):
        limits.check_upload("192.0.2.1", None)
    clock.pass_by(0.1)
    with pytest.raises(TooManyRequestsError) as refused:
        limits.check_upload("192.0.2.1", None)
    response = error_response(refused.value)
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "15"  # 14.9 rounded up, so that a retry succeeds
    [entry] = json.loads(bytes(response.body))["errors"]
    assert entry["code"] == "TOOMANYREQUESTS"
    assert entry["detail"] == {"retry_after": 15}
    assert refusals(limits, "192.0.2.1", None, 51) == 1
    with pytest.raises(TooManyRequestsError) as refused:
        limits.check_request("192.0.2.1", None)
    assert refused.value.retry_after == 1
