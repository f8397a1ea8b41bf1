"""Keys of an external issuer, and failures to read them."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import clock
from registry.auth.keys.jose import LEEWAY, jwk_of, verify
from registry.auth.tokens import external_issuers as module
from registry.auth.tokens.external_issuers import ExternalIssuer, KeySource, key_source
from registry.client.web import Web
from tests.auth.external_issuers.helpers import (
    AUDIENCE,
    FIRST,
    ISSUER,
    REFRESH,
    SECOND,
    Told,
    accepts,
    eventually,
    jwks,
    running,
    sign,
)
from tests.support.forged_tokens import assemble, forged, good_claims, signer
from tests.support.servers.upstream import Reply, Upstream, upstream

pytestmark = pytest.mark.anyio


async def test_keys_follow_the_issuer(
    publish: tuple[str, Callable[[Any], object], KeySource],
) -> None:
    name, put, source = publish
    tokens = [sign(key, good_claims(name, AUDIENCE)) for key in (FIRST, SECOND)]
    put(jwks(FIRST))
    async with running(ExternalIssuer(name, AUDIENCE, source, refresh=REFRESH)) as issuer:
        await eventually(lambda: accepts(issuer, tokens[0]))
        assert not accepts(issuer, tokens[1])
        put(jwks(FIRST, SECOND))
        await eventually(lambda: accepts(issuer, tokens[1]))
        assert accepts(issuer, tokens[0])
        put(jwks(SECOND))
        await eventually(lambda: not accepts(issuer, tokens[0]))
        assert issuer.verify(tokens[1])["sub"] == "somebody"
        assert issuer.issuer == name


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of tokens whose signatures were verified."""
    seen: list[str] = []

    def watched(token: str, *given: Any, **more: Any) -> Any:
        seen.append(token)
        return verify(token, *given, **more)

    monkeypatch.setattr(module, "verify", watched)
    return seen


class TestProvedBefore:
    """A repeated token is not verified again, and its lifetime stays the same."""

    @pytest.fixture
    async def issuer(self) -> ExternalIssuer:
        self.keys = jwks(FIRST, SECOND)

        async def source() -> object:
            return self.keys

        issuer = ExternalIssuer(ISSUER, AUDIENCE, source, refresh=3600)
        await issuer._fetch()
        return issuer

    async def test_it_is_proved_once(self, issuer: ExternalIssuer, proved: list[str]) -> None:
        tokens = [sign(FIRST), sign(SECOND)]
        for _ in range(3):
            for token in tokens:
                assert issuer.is_issuer_of(token)
                assert issuer.verify(token)["sub"] == "somebody"
        assert proved == tokens
        await issuer._fetch()  # The document has the same keys.
        assert accepts(issuer, tokens[0])
        assert proved == tokens

    async def test_what_was_refused_is_looked_at_again(
        self, issuer: ExternalIssuer, proved: list[str]
    ) -> None:
        self.keys = jwks(SECOND)
        await issuer._fetch()
        token = sign(FIRST)
        assert not accepts(issuer, token)
        self.keys = jwks(FIRST)
        await issuer._fetch()
        assert accepts(issuer, token)
        assert proved == [token, token]

    async def test_a_key_that_is_taken_out_takes_its_tokens_along(
        self, issuer: ExternalIssuer
    ) -> None:
        token = sign(FIRST)
        assert accepts(issuer, token)
        self.keys = jwks(SECOND)
        await issuer._fetch()
        assert not accepts(issuer, token)

    async def test_so_does_one_that_is_another_under_its_name(self, issuer: ExternalIssuer) -> None:
        token = sign(FIRST)
        assert accepts(issuer, token)
        (jwk,) = jwks(Ed25519PrivateKey.generate())["keys"]
        self.keys = {"keys": [{**jwk, "kid": jwk_of(FIRST.public_key())["kid"]}]}
        await issuer._fetch()
        assert not accepts(issuer, token)

    async def test_it_ends_when_it_says(
        self, issuer: ExternalIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = clock.now_us()
        token = sign(FIRST, {**good_claims(ISSUER, AUDIENCE), "exp": now // 1_000_000 + 10})
        assert accepts(issuer, token)
        for seconds, good in ((9 + LEEWAY, True), (10 + LEEWAY, False)):
            moment = now + int(seconds * 1_000_000)
            monkeypatch.setattr(clock, "now_us", lambda moment=moment: moment)
            assert accepts(issuer, token) is good


async def test_no_token_causes_a_request(server: Upstream, web: Web) -> None:
    source = key_source(web, issuer=ISSUER, url=server.put("/keys", jwks(FIRST)))
    good = sign(FIRST)
    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=3600)) as issuer:
        await eventually(lambda: accepts(issuer, good))
        assert len(server.requests) == 1
        for _ in range(3):
            assert not accepts(issuer, sign(Ed25519PrivateKey.generate()))
        for name, token in forged(ISSUER, AUDIENCE, good, FIRST.public_key()):
            assert not accepts(issuer, token), name
        await asyncio.sleep(0.2)
        assert len(server.requests) == 1


async def test_what_other_servers_do_otherwise(server: Upstream, web: Web) -> None:
    """A token may lack `typ`, `nbf` and `sub`, and may have a certificate chain in its header.

    GitLab issues such tokens for anonymous users.
    """
    source = key_source(web, issuer=ISSUER, url=server.put("/keys", jwks(FIRST)))
    claims = good_claims(ISSUER, AUDIENCE)
    del claims["nbf"], claims["sub"]
    jwk = jwk_of(FIRST.public_key())
    header = {"alg": jwk["alg"], "kid": jwk["kid"], "x5c": ["MIIB"]}
    token = assemble(header, claims, signer(FIRST))
    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=3600)) as issuer:
        await eventually(lambda: accepts(issuer, token))


async def test_an_issuer_that_is_down_at_the_start(
    web: Web, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    with upstream() as down:
        pass
    source = key_source(web, issuer=ISSUER, url=down.url("/keys"))
    begin = time.monotonic()
    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=3600)) as issuer:
        assert time.monotonic() - begin < 60  # and not the hour until the next refresh
        assert not accepts(issuer, sign(FIRST))
        await eventually(lambda: len(told()) > 1)
        with upstream(port=down.port) as up:
            up.put("/keys", jwks(FIRST))
            await eventually(lambda: accepts(issuer, sign(FIRST)))
    assert all(ISSUER in record.getMessage() and not record.exc_info for record in told())


async def test_failures_come_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, server: Upstream, web: Web
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    source = key_source(web, issuer=ISSUER, url=server.url("/none"))
    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=3600)):
        await asyncio.sleep(1)
    # The retries are after 0.05, 0.15, 0.35 and 0.75 s. The next one would be after 1.55 s.
    assert 3 <= len(server.requests) <= 5


BAD = [
    Reply(b"no", 500),
    Reply(b"no JSON"),
    Reply(b"[]"),
    Reply(b"{}"),
    Reply(b'{"keys": []}'),
    Reply(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
    Reply(status=302, headers={"location": "/keys"}),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda reply: f"{reply.status} {reply.body!r}")
async def test_a_bad_document_leaves_the_last_good_keys(
    server: Upstream, web: Web, bad: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    source = key_source(web, issuer=ISSUER, url=server.put("/keys", jwks(FIRST)))
    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=REFRESH)) as issuer:
        await eventually(lambda: accepts(issuer, sign(FIRST)))
        server.replies["/keys"] = bad
        asked = len(server.requests)
        await eventually(lambda: len(server.requests) > asked + 2)
        assert accepts(issuer, sign(FIRST))
        server.put("/keys", jwks(SECOND))
        await eventually(lambda: accepts(issuer, sign(SECOND)))


@pytest.mark.parametrize("content", [None, b"", b"no JSON", b"\xff", b"[" * 100_000, b"[]"])
async def test_a_bad_file(
    web: Web,
    tmp_path: Path,
    content: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content)
    source = key_source(web, issuer=ISSUER, file=path)
    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=REFRESH)) as issuer:
        await eventually(lambda: bool(told()))
        assert not told()[0].exc_info
        assert not accepts(issuer, sign(FIRST))
        path.write_text(json.dumps(jwks(FIRST)))
        await eventually(lambda: accepts(issuer, sign(FIRST)))


async def test_a_failure_nobody_thought_of(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    failures = [ZeroDivisionError("a bug")]

    async def source() -> object:
        if failures:
            raise failures.pop()
        return jwks(FIRST)

    async with running(ExternalIssuer(ISSUER, AUDIENCE, source, refresh=REFRESH)) as issuer:
        await eventually(lambda: accepts(issuer, sign(FIRST)))
    assert told()[0].exc_info


async def test_it_stops_while_it_waits_for_an_answer(server: Upstream, web: Web) -> None:
    server.replies["/keys"] = Reply(drip=5)
    source = key_source(web, issuer=ISSUER, url=server.url("/keys"))
    issuer = ExternalIssuer(ISSUER, AUDIENCE, source, refresh=REFRESH)
    await issuer.stop()  # The issuer has not started yet.
    async with running(issuer):
        await eventually(lambda: bool(server.requests))
        begin = time.monotonic()
    assert time.monotonic() - begin < 1
