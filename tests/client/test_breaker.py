"""The circuit breaker, with a clock that the test sets."""

from dataclasses import dataclass

import pytest

from registry.client import breaker as module
from registry.client.breaker import Breaker, BreakerState
from registry.errors import (
    UpstreamBusyError,
    UpstreamCredentialsError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
)

DOWN = UpstreamUnavailableError("down")


@dataclass
class Time:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    return Breaker("https://r.example", time)


def fail(breaker: Breaker, error: UpstreamError = DOWN, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(type(error)), breaker.watch():
            raise error


def succeed(breaker: Breaker) -> None:
    with breaker.watch():
        pass


def state_of(breaker: Breaker) -> BreakerState:
    return breaker.state


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, times=module.FAILURES - 1)
    succeed(breaker)
    fail(breaker, times=module.FAILURES - 1)
    assert state_of(breaker) is BreakerState.CLOSED
    fail(breaker)
    assert state_of(breaker) is BreakerState.OPEN
    with pytest.raises(UpstreamUnavailableError, match=r"is not called before .*Z: down") as caught:
        succeed(breaker)
    assert caught.value.retry_after == module.FIRST_PAUSE_S


def test_one_attempt_at_a_time_and_longer_pauses(breaker: Breaker, time: Time) -> None:
    fail(breaker, times=module.FAILURES)
    time.now += module.FIRST_PAUSE_S
    assert state_of(breaker) is BreakerState.HALF_OPEN
    with breaker.watch(), pytest.raises(UpstreamUnavailableError, match="not called"):
        succeed(breaker)
    assert state_of(breaker) is BreakerState.CLOSED
    for pause in (10, 20, 40, 80, 160, 300, 300):
        fail(breaker, times=module.FAILURES if breaker.cause is None else 1)
        assert breaker.seconds_left == pause
        time.now += pause
    succeed(breaker)
    assert state_of(breaker) is BreakerState.CLOSED


def test_a_cancelled_attempt_lets_another_one_through(breaker: Breaker, time: Time) -> None:
    fail(breaker, times=module.FAILURES)
    time.now += module.FIRST_PAUSE_S
    with pytest.raises(KeyboardInterrupt), breaker.watch():
        raise KeyboardInterrupt
    succeed(breaker)
    assert state_of(breaker) is BreakerState.CLOSED


def test_requests_sent_before_it_opened_change_nothing(breaker: Breaker) -> None:
    with breaker.watch():
        fail(breaker, times=module.FAILURES)
        breaker.record(DOWN)
    assert breaker.seconds_left == module.FIRST_PAUSE_S


def test_retry_after(breaker: Breaker, time: Time) -> None:
    fail(breaker, UpstreamUnavailableError("down", 77))
    assert breaker.seconds_left == 77
    time.now += 77
    fail(breaker, UpstreamRateLimitedError("slow", 10**9, is_pull_limit=False))
    assert breaker.seconds_left == module.LONGEST_RETRY_AFTER_S
    with pytest.raises(UpstreamRateLimitedError):
        succeed(breaker)
    breaker.reset()
    fail(breaker, UpstreamRateLimitedError("slow", is_pull_limit=False))
    assert breaker.seconds_left == module.LIMITED_PAUSE_S


def test_a_refused_password_opens_it_at_once(breaker: Breaker) -> None:
    fail(breaker, UpstreamCredentialsError("correct the password"))
    assert breaker.seconds_left == module.REFUSED_PAUSE_S
    with pytest.raises(UpstreamUnavailableError, match="correct the password"):
        succeed(breaker)
    breaker.reset()
    succeed(breaker)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamDeniedError("denied"),
        UpstreamBusyError("busy"),
        UpstreamRateLimitedError("pulls", 60, is_pull_limit=True),
    ],
)
def test_errors_of_a_healthy_upstream(breaker: Breaker, error: UpstreamError) -> None:
    fail(breaker, error, times=2 * module.FAILURES)
    assert state_of(breaker) is BreakerState.CLOSED
