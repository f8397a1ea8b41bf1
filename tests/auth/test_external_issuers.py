"""External issuers, tested with a real server on loopback that counts requests."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import clock
from registry.auth.keys.jose import LEEWAY, jwk_of, verify
from registry.auth.oidc_settings import OidcRule
from registry.auth.tokens import external_issuers as module
from registry.auth.tokens.external_issuers import ExternalIssuer, OidcIssuer, Source, key_source
from registry.client.web import Web
from registry.errors import TokenInvalidError
from tests.support.forging import PrivateKey, assemble, forged, good_claims, signer
from tests.support.upstream import Reply, Upstream, upstream

pytestmark = pytest.mark.anyio

ISSUER = "gitlab-issuer"
AUDIENCE = "container_registry"
FIRST: PrivateKey = Ed25519PrivateKey.generate()
SECOND: PrivateKey = generate_private_key(SECP256R1())
REFRESH = 0.05

Told = Callable[[], list[logging.LogRecord]]


def jwks(*keys: PrivateKey) -> dict[str, Any]:
    return {"keys": [jwk_of(key.public_key()) for key in keys]}


def sign(key: PrivateKey, claims: dict[str, Any] | None = None) -> str:
    jwk = jwk_of(key.public_key())
    header = {"typ": "JWT", "alg": jwk["alg"], "kid": jwk["kid"]}
    return assemble(header, claims or good_claims(ISSUER, AUDIENCE), signer(key))


def accepts(issuer: ExternalIssuer, token: str) -> bool:
    try:
        issuer.verify(token)
    except TokenInvalidError:
        return False
    return True


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(issuer: ExternalIssuer) -> AsyncIterator[ExternalIssuer]:
    await issuer.start()
    try:
        yield issuer
    finally:
        await issuer.stop()


@pytest.fixture
def server() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


@pytest.fixture
def web() -> Web:
    return Web(allow_private=True)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Return a function that lists the logged failures."""

    def failures() -> list[logging.LogRecord]:
        return [r for r in caplog.records if r.name == module.__name__ and r.levelno > logging.INFO]

    return failures


@pytest.fixture(params=["url", "file", "discovery"])
def publish(
    request: pytest.FixtureRequest, server: Upstream, web: Web, tmp_path: Path
) -> tuple[str, Callable[[Any], object], Source]:
    """Return the name of an issuer, a function that replaces its keys, and its key source."""
    if request.param == "file":
        path = tmp_path / "keys.json"
        source = key_source(web, issuer=ISSUER, file=path)
        return ISSUER, lambda document: path.write_text(json.dumps(document)), source
    if request.param == "url":
        source = key_source(web, issuer=ISSUER, url=server.url("/keys"))
        return ISSUER, lambda document: server.put("/keys", document), source
    issuer = server.url()
    server.put(
        "/.well-known/openid-configuration", {"issuer": issuer, "jwks_uri": server.url("/keys")}
    )
    return (
        issuer,
        lambda document: server.put("/keys", document),
        key_source(web, issuer=issuer),
    )


async def test_keys_follow_the_issuer(
    publish: tuple[str, Callable[[Any], object], Source],
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


class TestDiscovery:
    """The discovery document must name the issuer that was asked."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"issuer": "https://other.example.org"},
            {"issuer": None},
            {"jwks_uri": None},
            {"jwks_uri": ["/keys"]},
            {"jwks_uri": "/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": "http://169.254.169.254/keys"},
        ],
    )
    async def test_a_configuration_that_is_refused(
        self, server: Upstream, web: Web, changes: dict[str, Any], told: Told
    ) -> None:
        name = server.url()
        document = {"issuer": name, "jwks_uri": server.put("/keys", jwks(FIRST)), **changes}
        server.put("/.well-known/openid-configuration", document)
        source = key_source(web, issuer=name)
        async with running(ExternalIssuer(name, AUDIENCE, source, refresh=3600)) as issuer:
            await eventually(lambda: bool(told()))
            assert not accepts(issuer, sign(FIRST, good_claims(name, AUDIENCE)))
        assert not told()[0].exc_info
        assert [path for path, _ in server.requests] == ["/.well-known/openid-configuration"]

    async def test_http_and_private_addresses_are_for_those_who_allow_it(
        self, server: Upstream, told: Told
    ) -> None:
        source = key_source(Web(), issuer=server.url())
        async with running(ExternalIssuer(server.url(), AUDIENCE, source, refresh=3600)):
            await eventually(lambda: bool(told()))
        assert server.requests == []

    async def test_a_path_is_part_of_the_issuer(self, server: Upstream, web: Web) -> None:
        name = server.url("/realms/a/")
        server.put(
            "/realms/a/.well-known/openid-configuration",
            {"issuer": name, "jwks_uri": server.put("/keys", jwks(FIRST))},
        )
        source = key_source(web, issuer=name)
        async with running(ExternalIssuer(name, AUDIENCE, source, refresh=3600)) as issuer:
            token = sign(FIRST, good_claims(name, AUDIENCE))
            await eventually(lambda: accepts(issuer, token))
            assert not accepts(issuer, sign(FIRST, good_claims(name[:-1], AUDIENCE)))


# ID tokens as GitHub and GitLab document them, without claims that no rule would use.
GITHUB = {
    "sub": "repo:org/app:ref:refs/heads/main",
    "repository": "org/app",
    "repository_owner": "org",
    "repository_id": "74",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "event_name": "push",
    "job_workflow_ref": "org/app/.github/workflows/push.yml@refs/heads/main",
    "runner_environment": "github-hosted",
}
GITLAB = {
    "sub": "project_path:team/app:ref_type:branch:ref:main",
    "namespace_path": "team",
    "project_path": "team/app",
    "project_id": "22",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "environment": "production",
    "pipeline_source": "push",
    "runner_id": 1,
    "groups_direct": ["team"],
}


@pytest.mark.parametrize(
    ("made", "wanted", "robot"),
    [
        (GITHUB, {"repository": ("org/app",), "ref": ("refs/heads/main",)}, "ci"),
        (GITHUB, {"repository": ("org/*",), "event_name": ("push", "release")}, "ci"),
        (GITHUB, {"repository": ("org/app",), "environment": ("production",)}, None),
        (GITHUB, {"repository": ("org/app",), "ref": ("refs/tags/*",)}, None),
        (GITHUB, {"repository": ("other/app",)}, None),
        (GITLAB, {"project_path": ("team/app",), "environment": ("production",)}, "ci"),
        (GITLAB, {"project_path": ("team/app",), "ref_protected": ("true",)}, "ci"),
        (GITLAB, {"project_path": ("team/app",), "runner_id": ("1",)}, None),
        (GITLAB, {"project_path": ("team/app",), "groups_direct": ("team",)}, None),
        (GITLAB, {"project_path": ("team",)}, None),
    ],
)
async def test_id_tokens(
    server: Upstream,
    web: Web,
    made: dict[str, Any],
    wanted: dict[str, tuple[str, ...]],
    robot: str | None,
) -> None:
    name = "https://issuer.example.org"
    source = key_source(web, issuer=name, url=server.put("/keys", jwks(SECOND)))
    rules = [OidcRule("nobody", {"repository": ("org/none",)}), OidcRule("ci", wanted)]
    token = sign(SECOND, {**good_claims(name, "moorage"), **made})
    async with running(OidcIssuer(name, "moorage", source, rules, refresh=3600)) as issuer:
        assert isinstance(issuer, OidcIssuer)
        await eventually(lambda: accepts(issuer, token))
        assert issuer.match(issuer.verify(token)) == robot
        for key, claims in (
            (FIRST, good_claims(name, "moorage")),
            (SECOND, good_claims(name, "other")),
            (SECOND, good_claims(f"{name}/", "moorage")),
        ):
            assert not accepts(issuer, sign(key, {**made, **claims}))


async def test_the_first_rule_that_matches_names_the_robot() -> None:
    async def source() -> object:
        return {}

    rules = [
        OidcRule("release", {"repository": ("org/app",), "ref": ("refs/tags/v*",)}),
        OidcRule("ci", {"repository": ("org/app",)}),
        OidcRule("late", {"repository": ("org/app",)}),
    ]
    issuer = OidcIssuer("https://issuer.example.org", "moorage", source, rules, refresh=1)
    assert issuer.match({"repository": "org/app", "ref": "refs/tags/v1"}) == "release"
    assert issuer.match({"repository": "org/app", "ref": "refs/heads/main"}) == "ci"
    assert issuer.match({"repository": "org/lib"}) is None
    assert issuer.match({}) is None
