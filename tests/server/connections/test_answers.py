"""Responses that the server repeats from memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network

import pytest

from registry import clock
from registry.auth.caller import Validity
from registry.oci.names import RepositoryName
from registry.server.answers import MAX_BODY, MAX_HEAD, Answers, Peer
from registry.server.limits import ServerLimits
from tests.server.connections.remembered import NAME, App, Client, Revisions, connected
from tests.support.servers.differential import count_hits
from tests.support.servers.http_server import Served, serving_app

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def revisions() -> Revisions:
    return Revisions()


@pytest.fixture
def answers(revisions: Revisions) -> Answers:
    return Answers(revisions, 1 << 20)


@pytest.fixture
async def served(app: App, answers: Answers, anyio_backend: str) -> AsyncIterator[Served]:
    del anyio_backend
    async with serving_app(app, answers=answers) as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with connected(served) as client:
        yield client


async def learned(client: Client, data: bytes = HEAD) -> tuple[bytes, bytes]:
    """Send a request once, and let the server finish it."""
    first = await client.send(data)
    await asyncio.sleep(0)
    return first


async def test_the_same_bytes_get_the_same_response(
    served: Served, client: Client, app: App
) -> None:
    before = count_hits()
    served.server.server_state.default_headers = [(b"date", b"then")]
    head, body = await learned(client)
    served.server.server_state.default_headers = [(b"date", b"now")]
    again, body_again = await client.send(HEAD)
    assert app.calls == 1
    assert b"Date: now\r\n" in again
    assert body == body_again == b"{}"
    first, second = head.split(b"\r\n"), again.split(b"\r\n")
    places = [i for i, line in enumerate(first) if line.startswith((b"Date", b"X-Request-Id"))]
    assert len(places) == 2
    for lines in (first, second):
        for place in places:
            lines[place] = lines[place].partition(b":")[0]
    assert first == second
    ids = {h.partition(b"X-Request-Id: ")[2].partition(b"\r\n")[0] for h in (head, again)}
    assert len(ids) == 2
    assert count_hits() == before + 1
    assert app.notes == 1


async def test_another_client_gets_it_too(served: Served, client: Client, app: App) -> None:
    await learned(client)
    async with connected(served) as other:
        await other.send(HEAD)
    assert app.calls == 1


async def test_other_bytes_are_another_request(client: Client, app: App) -> None:
    await learned(client)
    await learned(client, HEAD.replace(b"Host: a", b"host: a"))
    await learned(client, HEAD.replace(b"\r\n\r\n", b"\r\nAccept: b\r\n\r\n"))
    assert app.calls == 3


async def test_a_head_in_two_pieces_is_parsed(client: Client, app: App) -> None:
    await learned(client)
    client.writer.write(HEAD[:20])
    await asyncio.sleep(0.05)
    await client.send(HEAD[20:])
    assert app.calls == 2


async def test_pipelined_requests_are_answered_in_order(client: Client, app: App) -> None:
    await learned(client)
    other = HEAD.replace(b"Host: a", b"Host: b")
    client.writer.write(HEAD + other + HEAD)
    heads = [(await client.read())[0] for _ in range(3)]
    ids = [h.partition(b"X-Request-Id: ")[2].partition(b"\r\n")[0] for h in heads]
    assert ids == [b"2", b"3", b"4"]
    assert app.calls == 4


async def test_head_has_no_body(client: Client, app: App) -> None:
    data = HEAD.replace(b"GET", b"HEAD")
    first = await learned(client, data)
    second = await client.send(data)
    assert app.calls == 1
    assert first[1] == second[1] == b""
    assert b"Content-Length: 2\r\n" in second[0]


@pytest.mark.parametrize(
    "data",
    [
        HEAD.replace(b"GET", b"DELETE"),
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.1").replace(b"Host: a", b"Host: a\r\nX-Request-Id: b"),
        HEAD.replace(b"Host: a", b"Host: a\r\nAUTHORIZATION: b"),
        HEAD.replace(b"Host: a", b"Host: a\r\nContent-Length: 1") + b"x",
        HEAD.replace(b"Host: a", b"Host: a\r\nAccept: " + b"b" * MAX_HEAD),
    ],
    ids=["method", "request-id", "credentials", "body", "size"],
)
async def test_requests_that_are_always_handled(client: Client, app: App, data: bytes) -> None:
    await learned(client, data)
    await learned(client, data)
    assert app.calls == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda app: setattr(app, "status", 404),
        lambda app: setattr(app, "body", b"b" * (MAX_BODY + 1)),
        lambda app: setattr(app, "more", [(b"set-cookie", b"a=b")]),
        lambda app: setattr(app, "allows", False),
    ],
    ids=["status", "size", "cookie", "not-allowed"],
)
async def test_responses_that_are_not_repeated(
    client: Client, app: App, change: Callable[[App], None]
) -> None:
    change(app)
    await learned(client)
    await learned(client)
    assert app.calls == 2


async def test_nothing_is_repeated_after_a_commit(
    client: Client, app: App, revisions: Revisions
) -> None:
    await learned(client)
    revisions.commit()
    await learned(client)
    assert app.calls == 2
    await client.send(HEAD)
    assert app.calls == 2


async def test_other_repositories_stay_after_a_commit(
    client: Client, app: App, revisions: Revisions
) -> None:
    await learned(client)
    revisions.commit()
    revisions.forget[0](frozenset({RepositoryName("other")}))
    await revisions.read()
    await client.send(HEAD)
    assert app.calls == 1
    revisions.forget[0](frozenset({NAME}))
    await learned(client)
    assert app.calls == 2


@pytest.mark.parametrize("change", [None, 2], ids=["unknown-changes", "policy"])
async def test_other_changes_end_all(
    client: Client, app: App, revisions: Revisions, change: int | None
) -> None:
    await learned(client)
    if change is None:
        revisions.forget[0](None)
    else:
        revisions.policy = change
    await learned(client)
    assert app.calls == 2


async def test_a_response_made_during_a_commit_is_not_learned(
    client: Client, app: App, revisions: Revisions
) -> None:
    app.during = revisions.commit
    await learned(client)
    app.during = lambda: None
    await learned(client)
    assert app.calls == 2
    await client.send(HEAD)
    assert app.calls == 2


async def test_the_caller_is_valid_for_a_time(
    client: Client, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now)
    app.validity = Validity(expires_at=now + 10)
    await learned(client)
    now += 9
    await client.send(HEAD)
    assert app.calls == 1
    now += 1
    await learned(client)
    assert app.calls == 2


async def test_a_clock_that_was_set_back(
    client: Client, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now)
    app.validity = Validity(expires_at=now + 10)
    await learned(client)
    now -= 1
    await learned(client)
    assert app.calls == 2


async def test_a_deadline(client: Client, app: App) -> None:
    app.validity = Validity(deadline=0.0)
    await learned(client)
    await learned(client)
    assert app.calls == 2


async def test_rate_limits_are_asked(client: Client, app: App) -> None:
    asked: list[str | None] = []

    def admit(address: str | None) -> bool:
        asked.append(address)
        return len(asked) < 2

    app.admit = admit
    await learned(client)
    await client.send(HEAD)
    assert app.calls == 1
    await client.send(HEAD)
    assert app.calls == 2
    assert asked == ["127.0.0.1", "127.0.0.1"]


async def test_a_stopping_server_repeats_nothing(
    client: Client, app: App, answers: Answers
) -> None:
    await learned(client)
    answers.close()
    await learned(client)
    await learned(client)
    assert app.calls == 3


async def test_the_memory_is_bounded(revisions: Revisions, app: App, anyio_backend: str) -> None:
    del anyio_backend
    answers = Answers(revisions, 40_000)
    async with serving_app(app, answers=answers) as served, connected(served) as client:
        heads = [HEAD.replace(b"Host: a", b"Host: a%d" % number) for number in range(40)]
        for head in heads:
            await learned(client, head)
        assert 10_000 < answers._size <= 40_000
        assert answers._size == sum(entry.size for entry in answers._entries.values())
        await client.send(heads[-1])
        assert app.calls == 40
        await client.send(heads[0])
        assert app.calls == 41
        revisions.forget[0](frozenset({NAME}))
        assert answers._size == 0
        assert not answers._keys


def test_a_proxy_is_part_of_the_request(revisions: Revisions) -> None:
    """Its headers name the client, so those of another peer count for nothing."""
    answers = Answers(revisions, 1 << 20, (ip_network("127.0.0.0/8"),))

    def find_peer(scheme: str, client: tuple[str, int]) -> Peer:
        server = "127.0.0.1", 5000
        return answers.find_peer({"scheme": scheme, "server": server, "client": client})

    first = find_peer("http", ("127.0.0.1", 1))
    assert first.client == ""
    assert first != find_peer("http", ("127.0.0.2", 1))
    assert first == find_peer("http", ("127.0.0.1", 2))
    direct = find_peer("http", ("10.0.0.1", 1))
    assert direct.client == "10.0.0.1"
    assert direct.prefix == find_peer("http", ("10.0.0.2", 1)).prefix
    assert direct.prefix != find_peer("https", ("10.0.0.1", 1)).prefix


async def test_credentials_are_not_kept(client: Client, answers: Answers, app: App) -> None:
    data = HEAD.replace(b"Host: a", b"Host: a\r\nAuthorization: Basic c2VjcmV0")
    await learned(client, data)
    await client.send(data)
    assert app.calls == 1
    assert all(b"c2VjcmV0" not in key for key in answers._entries)


async def test_an_idle_connection_becomes_the_last_to_be_evicted(
    app: App, answers: Answers, anyio_backend: str
) -> None:
    del anyio_backend
    limits = ServerLimits(connections=2, per_address=0)
    async with (
        serving_app(app, limits, answers=answers) as served,
        connected(served) as first,
        connected(served) as second,
    ):
        await learned(first)
        await second.send(HEAD)
        await first.send(HEAD)
        assert app.calls == 1
        async with connected(served) as third:
            await third.send(HEAD)
            assert await second.reader.read() == b""
            await first.send(HEAD)
