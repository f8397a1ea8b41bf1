"""Admission of connections, and the choice of connections to close."""

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from registry.server.admission import RESERVE, RESERVE_PER_ADDRESS, Admission
from registry.server.limits import ServerLimits
from registry.server.places import Places, Refusal, Slot


@dataclass(eq=False)
class Opened:
    """A connection that records whether it was closed for another one."""

    slot: Slot
    closed: bool = False

    def check_deadlines(self, now: float) -> None: ...

    def give_way(self) -> None:
        self.closed = True


def connect(admission: Admission, address: str, *, idle: bool) -> Opened:
    slot = admission.admit(address)
    assert slot is not None
    opened = Opened(slot)
    slot.member = opened
    if idle:
        admission.set_idle(slot)
    return opened


def test_the_longest_idle_of_the_address_gives_way_at_its_limit() -> None:
    admission = Admission(ServerLimits(connections=100, per_address=2))
    first = connect(admission, "192.0.2.1", idle=True)
    second = connect(admission, "192.0.2.1", idle=True)
    other = connect(admission, "192.0.2.2", idle=True)
    third = connect(admission, "192.0.2.1", idle=True)
    assert (first.closed, second.closed, other.closed) == (True, False, False)
    assert third.slot.refusal is None
    admission.set_busy(second.slot)
    admission.set_idle(second.slot)  # idle since later than the third
    connect(admission, "192.0.2.1", idle=False)
    assert (second.closed, third.closed) == (False, True)


def test_an_address_whose_connections_are_all_in_use_is_refused_alone() -> None:
    admission = Admission(ServerLimits(connections=100, per_address=2))
    for _ in range(2):
        connect(admission, "192.0.2.1", idle=False)
    assert connect(admission, "192.0.2.1", idle=False).slot.refusal is Refusal.ADDRESS
    assert connect(admission, "192.0.2.2", idle=False).slot.refusal is None


def test_an_ipv6_network_is_one_client_and_a_proxy_none() -> None:
    proxies = (ip_network("192.0.2.9/32"),)
    admission = Admission(ServerLimits(per_address=1, trusted_proxies=proxies))
    connect(admission, "2001:db8::1", idle=False)
    assert connect(admission, "2001:db8::2", idle=False).slot.refusal is Refusal.ADDRESS
    assert connect(admission, "2001:db8:0:1::2", idle=False).slot.refusal is None
    for _ in range(3):
        assert connect(admission, "192.0.2.9", idle=False).slot.refusal is None
        assert connect(admission, "", idle=False).slot.refusal is None  # a Unix socket


def test_when_all_are_taken_the_address_with_most_idle_ones_gives_way() -> None:
    admission = Admission(ServerLimits(connections=4, per_address=0))
    quiet = connect(admission, "192.0.2.1", idle=True)
    crowd = [connect(admission, "192.0.2.2", idle=True) for _ in range(3)]
    connect(admission, "192.0.2.3", idle=False)
    assert (quiet.closed, [each.closed for each in crowd]) == (False, [True, False, False])
    assert len(admission) == 4


def test_beyond_the_reserve_nothing_is_admitted() -> None:
    admission = Admission(ServerLimits(connections=3, per_address=0))
    opened = [connect(admission, f"192.0.2.{n}", idle=False) for n in range(3 + RESERVE)]
    assert [each.slot.refusal for each in opened] == [None] * 3 + [Refusal.SERVER] * RESERVE
    assert admission.admit("192.0.2.99") is None
    admission.release(opened[0].slot)
    admission.release(opened[0].slot)  # a second release is not an error
    assert admission.admit("192.0.2.99") is not None


def test_the_reserve_is_not_for_one_address() -> None:
    admission = Admission(ServerLimits(connections=2, per_address=0))
    for _ in range(2 + RESERVE_PER_ADDRESS):
        connect(admission, "192.0.2.1", idle=False)
    assert admission.admit("192.0.2.1") is None
    assert connect(admission, "192.0.2.2", idle=False).slot.refusal is Refusal.SERVER
    assert connect(admission, "192.0.2.2", idle=False).slot.refusal is Refusal.SERVER


def test_a_refused_connection_gives_way_only_to_refused_ones() -> None:
    """A refused connection uses a reserved place, which must not be given to a served one."""
    admission = Admission(ServerLimits(connections=2, per_address=0))
    for _ in range(2):
        connect(admission, "192.0.2.1", idle=False)
    refused = [connect(admission, f"192.0.2.{n}", idle=True) for n in range(2, 2 + RESERVE)]
    latest = connect(admission, "192.0.2.99", idle=True)
    assert latest.slot.refusal is Refusal.SERVER
    assert [each.closed for each in refused] == [True] + [False] * (RESERVE - 1)


def test_no_address_has_more_than_half_of_few_connections() -> None:
    admission = Admission(ServerLimits(connections=10, per_address=2048))
    opened = [connect(admission, "192.0.2.1", idle=False) for _ in range(6)]
    assert [each.slot.refusal for each in opened] == [None] * 5 + [Refusal.ADDRESS]
    assert connect(admission, "192.0.2.2", idle=False).slot.refusal is None


def test_who_gave_way_before_it_was_ready_is_not_idle_any_more() -> None:
    admission = Admission(ServerLimits(connections=1, per_address=0))
    first = connect(admission, "192.0.2.1", idle=True)
    second = connect(admission, "192.0.2.2", idle=False)
    admission.set_idle(first.slot)  # its handshake ended just before it was closed
    assert connect(admission, "192.0.2.3", idle=False).slot.refusal is Refusal.SERVER
    assert (first.closed, second.closed) == (True, False)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["open", "idle", "busy", "close", "evict"]), st.integers(0, 30)),
        max_size=80,
    )
)
def test_the_network_with_most_idle_connections_is_always_found(
    steps: list[tuple[str, int]],
) -> None:
    places = Places(1000, 0)
    opened: list[Opened] = []
    idle: list[Opened] = []
    for step, number in steps:
        if step == "open":
            opened.append(Opened(places.take(f"192.0.2.{number % 4}")))
            opened[-1].slot.member = opened[-1]
        elif step == "evict":
            counts = Counter(each.slot.network for each in idle)
            assert places.evict_idle() == bool(idle)
            if idle:
                [closed] = [each for each in opened if each.closed]
                assert counts[closed.slot.network] == max(counts.values())
                same = [each for each in idle if each.slot.network == closed.slot.network]
                assert same[0] is closed
                idle.remove(closed)
                opened.remove(closed)
        elif opened:
            each = opened[number % len(opened)]
            if each in idle and step != "idle":
                idle.remove(each)
            if step == "idle":
                places.set_idle(each.slot)
                idle += [each] if each not in idle else []
            elif step == "busy":
                places.set_busy(each.slot)
            else:
                places.release(each.slot)
                opened.remove(each)
    assert list(places) == [each.slot for each in opened]
