"""Choice of incomplete heads to refuse when all together are too large."""

from dataclasses import dataclass

from registry.server.partial_heads import PartialHeads


@dataclass(eq=False)
class Client:
    network: str
    heads: PartialHeads
    refused: bool = False

    def send(self, size: int) -> "Client":
        self.heads.set_size(self, size)
        self.heads.make_room()
        return self

    def refuse_head(self) -> None:
        self.refused = True
        self.heads.set_size(self, 0)


def test_the_largest_heads_of_the_network_that_sent_most_give_way() -> None:
    heads = PartialHeads(1000)
    crowd = [Client("192.0.2.1", heads).send(size) for size in (100, 300, 200)]
    single = Client("192.0.2.2", heads).send(350)
    assert not [each for each in (*crowd, single) if each.refused]
    last = Client("192.0.2.3", heads).send(60)
    assert [each.refused for each in (*crowd, single, last)] == [False, True, False, False, False]
    assert heads.size == 710


def test_one_that_grows_beyond_the_budget_alone_is_refused_itself() -> None:
    heads = PartialHeads(1000)
    other = Client("192.0.2.1", heads).send(30)
    large = Client("192.0.2.2", heads).send(500).send(980)
    assert (other.refused, large.refused, heads.size) == (False, True, 30)


def test_a_part_of_the_budget_is_freed_at_once() -> None:
    heads = PartialHeads(10_000)
    crowd = [Client(f"192.0.2.{n}", heads).send(20) for n in range(250) for _ in range(2)]
    assert not any(each.refused for each in crowd)
    Client("192.0.2.1", heads).send(20)
    assert sum(each.refused for each in crowd) >= 10_000 // 32 // 20
    for each in crowd:
        each.send(0)
    assert heads.size <= 20


def test_what_was_counted_is_forgotten_with_the_head() -> None:
    heads = PartialHeads(1000)
    client = Client("192.0.2.1", heads).send(400)
    client.send(0)
    client.send(0)
    assert heads.size == 0
