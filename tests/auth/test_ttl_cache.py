"""The cache of recently verified credentials, and its limits."""

import asyncio
import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.credentials.ttl_cache import SingleFlight, TtlCache, _hash


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose only item sets how many seconds have passed."""
    passed = [0.0]
    begin = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begin + passed[0])
    return passed


def test_finds_what_was_put_and_nothing_else() -> None:
    recent: TtlCache[int] = TtlCache(10, 60)
    recent.put("ann\0secret", 1)
    assert recent.find("ann\0secret") == 1
    for other in ("", "ann", "ann\0Secret", "ann\0secret\0", "annsecret"):
        assert recent.find(other) is None


def test_it_is_over_after_its_time(later: list[float]) -> None:
    recent: TtlCache[int] = TtlCache(10, 60)
    recent.put("a", 1)
    later[0] = 59.9
    assert recent.find("a") == 1
    later[0] = 60.1
    assert recent.find("a") is None


def test_looking_does_not_prolong_it(later: list[float]) -> None:
    recent: TtlCache[int] = TtlCache(10, 60)
    recent.put("a", 1)
    for _ in range(7):
        later[0] += 10
        recent.find("a")
    assert recent.find("a") is None
    recent.put("a", 2)
    assert recent.find("a") == 2


def test_long_texts_have_a_room_in_common() -> None:
    recent: TtlCache[int] = TtlCache(100, 60, room=1000)
    for number in range(50):
        recent.put(f"{number:0100}", number)
    found = [number for number in range(50) if recent.find(f"{number:0100}") is not None]
    assert found == list(range(40, 50))
    recent.put(f"{45:0100}", 45)
    recent.drop(f"{46:0100}")
    recent.put("short", 1)
    assert len(recent._values) == 10
    recent.put("x" * 1001, 1)  # The key is larger than the whole cache, so it is not kept.
    assert len(recent._values) == 0
    recent.put("y" * 1000, 1)
    assert recent.find("y" * 1000) == 1


def test_the_oldest_goes_first() -> None:
    recent: TtlCache[int] = TtlCache(3, 60)
    for number, text in enumerate("abca"):
        recent.put(text, number)
    recent.put("d", 4)
    assert [recent.find(text) for text in "abcd"] == [3, None, 2, 4]
    for number in range(1000):
        recent.put(str(number), number)
    assert len(recent._values) == 3


def test_the_text_is_not_kept() -> None:
    recent: TtlCache[int] = TtlCache(10, 60)
    typed = "correct horse"
    recent.put(typed, 1)
    gc.collect()
    kept = repr(recent._values) + repr(vars(recent))
    assert "horse" not in kept
    assert len(_hash("a")) == len(_hash("a" * 100_000))


@given(st.lists(st.text(), unique=True, max_size=20))
def test_texts_are_not_taken_for_one_another(texts: list[str]) -> None:
    recent: TtlCache[str] = TtlCache(100, 60)
    for text in texts:
        recent.put(text, text)
    assert [recent.find(text) for text in texts] == texts


def test_odd_texts() -> None:
    recent: TtlCache[int] = TtlCache(10, 60)
    recent.put("\ud800", 1)
    assert recent.find("\ud800") == 1
    assert recent.find("\ud801") is None


@pytest.mark.anyio
async def test_others_wait_for_the_first_alone() -> None:
    """Waiting callers proceed together when the first one ends, even if it fails."""
    signing_in = SingleFlight()
    order: list[str] = []

    async def come(name: str, text: str) -> None:
        await signing_in.wait(text)
        with signing_in.proving(text):
            order.append(f"{name} begins")
            await asyncio.sleep(0.01)
            order.append(f"{name} ends")
            raise ValueError

    tasks = [asyncio.create_task(come(name, "a")) for name in ("first", "second", "third")]
    tasks.append(asyncio.create_task(come("other", "b")))
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order[:2] == ["first begins", "other begins"]
    begun = [order.index(f"{name} begins") for name in ("second", "third")]
    assert max(begun) < min(order.index(f"{name} ends") for name in ("second", "third"))
    assert signing_in._ends == {}
