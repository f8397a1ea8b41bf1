"""Tokens, and the errors of token servers."""

import asyncio
from urllib.parse import parse_qs

import pytest

from registry.client import authorization as module
from registry.client.credentials import from_settings
from registry.errors import (
    UpstreamCredentialsError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
)
from tests.client.conftest import SHORT, calling
from tests.client.token_servers import (
    BASIC,
    PASSWORD,
    PATH,
    SCOPE,
    SIGNED_IN,
    TokenServer,
    accept_tokens,
    pull,
    sent,
)
from tests.support.servers.hostile import hostile, say
from tests.support.servers.upstream import Reply
from tests.support.servers.upstream import Upstream as Server

pytestmark = [pytest.mark.anyio, pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])]


async def test_a_token_serves_until_it_expires(
    plain: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of 60 s is renewed in time, once for each life, in a pull of three minutes."""
    TokenServer(plain, plain).issue()
    accept_tokens(plain, "made")
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
        for _ in range(19):  # 180 s
            await pull(upstream)
            now += 10
    requests = sent(plain)
    assert requests[:3] == [(PATH, ""), ("/token", BASIC), (PATH, "Bearer made")]
    assert [path for path, _ in requests].count("/token") == 4
    assert len(requests) == 1 + 4 + 19


async def test_the_stated_life_counts(plain: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    TokenServer(plain, plain).issue(expires_in=300)
    accept_tokens(plain, "made")
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    async with calling(plain.url()) as upstream:
        for pause in (289, 2, 0):
            await pull(upstream)
            now += pause
    assert [path for path, _ in sent(plain)].count("/token") == 2


async def test_a_revoked_token_is_replaced_by_the_first_challenge(plain: Server) -> None:
    """The second token is requested where the challenge without a token says (nvcr.io)."""
    server = TokenServer(plain, plain)
    server.issue()
    accept_tokens(plain, "made")
    async with calling(plain.url()) as upstream:
        await pull(upstream)
        plain.replies = dict(plain.replies)
        plain.replies[PATH] = server.challenge()
        server.issue(token="other")  # noqa: S106
        accept_tokens(plain, "other")
        plain.requests.clear()
        await pull(upstream)
    assert sent(plain) == [
        (PATH, "Bearer made"), (PATH, ""), ("/token", ""), (PATH, "Bearer other"),
    ]  # fmt: skip


async def test_many_requests_share_one_token_request(plain: Server) -> None:
    TokenServer(plain, plain)
    plain.replies["/token"] = Reply(b'{"access_token": "made"}', drip=0.5)
    accept_tokens(plain, "made")
    async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
        pulls = [asyncio.create_task(pull(upstream)) for _ in range(10)]
        while len(plain.requests) < 11:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        for each in pulls[:-1]:  # the last one still gets its token
            each.cancel()
        *cancelled, last = await asyncio.gather(*pulls, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in cancelled)
        assert last is None
    assert [path for path, _ in sent(plain)].count("/token") == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"service": ["s"], "scope": [SCOPE]}),
        ({"scope": "repository:x:pull"}, {"service": ["s"], "scope": ["repository:x:pull"]}),
        ({"service": ""}, {"scope": [SCOPE]}),
    ],
)  # fmt: skip
async def test_what_is_asked_for(
    plain: Server, more: dict[str, str], expected: dict[str, list[str]]
) -> None:
    async with hostile(
        say(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n", b'{"token": "made"}')
    ) as tokens:
        server = TokenServer(plain, plain)
        server.realm = f"{tokens.url}/token?account=x"
        plain.replies[PATH] = server.challenge(**more)
        async with calling(plain.url()) as upstream:
            with pytest.raises(UpstreamError):
                await pull(upstream)
        target = tokens.heads[0].split(" ")[1]
    assert parse_qs(target.partition("?")[2]) == {"account": ["x"], **expected}


async def test_an_identity_token_is_a_refresh_token(plain: Server) -> None:
    """The token is in a form, and nowhere else (OAuth 2 of Azure)."""
    made = b'{"access_token": "made"}'
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        bodies.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(made), made))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as tokens:
        server = TokenServer(plain, plain)
        origin = f"http://127.0.0.1:{tokens.sockets[0].getsockname()[1]}"
        server.realm = f"{origin}/oauth2/token"
        plain.replies[PATH] = server.challenge()
        accept_tokens(plain, "made")
        source = from_settings("<token>", PASSWORD)
        async with calling(plain.url(), credentials=source, token_origins=[origin]) as upstream:
            await pull(upstream)
    [raw] = bodies
    head, _, form = raw.decode().partition("\r\n\r\n")
    assert head.startswith("POST /oauth2/token HTTP/1.1\r\n")
    assert "authorization" not in head.lower()
    assert parse_qs(form) == {
        "grant_type": ["refresh_token"], "refresh_token": [PASSWORD], "client_id": ["moorage"],
        "service": ["s"], "scope": [SCOPE],
    }  # fmt: skip


class TestRefusals:
    """Errors of a token server."""

    @pytest.mark.parametrize(
        ("reply", "expected"),
        [
            (Reply(b"secret-word", 401), UpstreamCredentialsError),
            (Reply(b"secret-word", 403), UpstreamDeniedError),
            (Reply(b"secret-word", 429), UpstreamRateLimitedError),
            (Reply(b"secret-word", 500), UpstreamUnavailableError),
            (Reply(b"secret-word"), UpstreamProtocolError),
            (Reply(b"[]"), UpstreamProtocolError),
            (Reply(b'{"token": 1}'), UpstreamProtocolError),
            (Reply(b'{"token": "secret-word\\r\\nX: y"}'), UpstreamProtocolError),
            (Reply(b'{"token": ""}'), UpstreamProtocolError),
            (Reply(b" " * 2000 + b"{}"), UpstreamProtocolError),
            (Reply(drip=3), UpstreamUnavailableError),
        ],
        ids=str,
    )
    async def test_errors(
        self,
        plain: Server,
        reply: Reply,
        expected: type[UpstreamError],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "_MOST_BYTES", 1000)
        TokenServer(plain, plain)
        plain.replies["/token"] = reply
        async with calling(plain.url(), credentials=SIGNED_IN, deadlines=SHORT) as upstream:
            with pytest.raises(UpstreamError) as caught:
                await pull(upstream)
        assert type(caught.value) is expected
        assert "secret-word" not in caught.value.message

    async def test_a_token_that_is_not_accepted(self, plain: Server) -> None:
        TokenServer(plain, plain).issue()
        async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
            for _ in range(2):
                with pytest.raises(UpstreamDeniedError):
                    await pull(upstream)
        assert len(plain.requests) < 10
