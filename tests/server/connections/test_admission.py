"""Which connections are admitted, and which give way."""

from dataclasses import dataclass
from ipaddress import ip_network

from registry.server.admission import RESERVE, Admission, Refusal, Slot
from registry.server.limits import ServerLimits


@dataclass
class Opened:
    """A connection that notes whether it gave way."""

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
    admission.set_idle(second.slot)  # after the third
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
    admission.release(opened[0].slot)  # twice is no error
    assert admission.admit("192.0.2.99") is not None
