"""Access tokens, signed and read with the keys of a real keyring."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import clock
from registry.auth.keys.jose import LEEWAY, public_keys
from registry.auth.keys.key_store import DatabaseKeyStore
from registry.auth.keys.keyring import Keyring
from registry.auth.keys.token_length import MAX_TOKEN
from registry.auth.policy.actions import Action
from registry.auth.policy.policy import Policy
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.principals import ANONYMOUS, Principal
from registry.auth.policy.scopes import Scopes
from registry.auth.settings import AuthSettings
from registry.auth.tokens.issuer import LONGEST, SURE, TokenIssuer, read_issuer
from registry.errors import ConfigError, TokenInvalidError, TooManyScopesError
from registry.metadata.access import signing_keys
from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from tests.support.forged_tokens import assemble, decode, forged, signer

pytestmark = pytest.mark.anyio

ANN = Principal("ann", "user:ann:generation")
APP = RepositoryName("team/app")
SCOPES = Scopes({APP: frozenset({Action.PULL, Action.PUSH})})
RULES = AuthSettings(service="registry.example.org", token_lifetime=300)
EVERYTHING = frozenset({Action.PULL, Action.PUSH, Action.DELETE})


@dataclass
class Issuer:
    """The parts of a registry that issue tokens."""

    database: Database
    keyring: Keyring
    policies: PolicyCache
    tokens: TokenIssuer

    async def policy(self) -> Policy:
        return await self.policies.get()

    async def issue(self, principal: Principal = ANN, scopes: Scopes = SCOPES) -> str:
        return (await self.tokens.issue(principal, scopes, await self.policy())).token


@pytest.fixture
async def issuer(database_url: str, anyio_backend: str) -> AsyncIterator[Issuer]:
    del anyio_backend
    database = Database(database_url)
    keyring = Keyring(database, DatabaseKeyStore(database, "s" * 32))
    await keyring.prepare()
    watch = RevisionWatch(database)
    policies = PolicyCache(database, watch, personal_namespaces=False)
    yield Issuer(database, keyring, policies, TokenIssuer(keyring, RULES))
    watch.close()
    await database.close()


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(decode(header)), json.loads(decode(claims))


async def test_a_token_says_what_it_is(issuer: Issuer) -> None:
    policy = await issuer.policy()
    before = time.time()
    issued = await issuer.tokens.issue(ANN, SCOPES, policy)
    header, claims = parts(issued.token)
    assert policy.active_key is not None
    assert header == {"alg": "EdDSA", "typ": "JWT", "kid": policy.active_key.kid}
    assert claims["iss"] == "registry.example.org"
    assert claims["aud"] == "registry.example.org"
    assert claims["sub"] == "ann"
    assert claims["exp"] - claims["iat"] == issued.life == 300
    assert claims["nbf"] == claims["iat"] == issued.at // 1_000_000
    assert before - 1 <= claims["iat"] <= time.time()
    assert claims["jti"] == issued.id
    assert claims["access"] == [
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]}
    ]


async def test_what_was_issued_is_read(issuer: Issuer) -> None:
    policy = await issuer.policy()
    bearer = issuer.tokens.read(await issuer.issue(), policy)
    assert bearer.principal == ANN
    assert bearer.scopes == SCOPES
    assert bearer.since == policy.revision
    assert policy.active_key is not None
    assert bearer.kid == policy.active_key.kid
    assert abs(bearer.expires - time.time() - 300) < 5


async def test_no_two_tokens_are_alike(issuer: Issuer) -> None:
    assert len({await issuer.issue() for _ in range(5)}) == 5


async def test_anybody(issuer: Issuer) -> None:
    token = await issuer.issue(ANONYMOUS)
    assert parts(token)[1]["sub"] == ""
    assert issuer.tokens.read(token, await issuer.policy()).principal == ANONYMOUS


async def test_an_independent_reader_agrees(issuer: Issuer) -> None:
    (key,) = jwt.PyJWKSet.from_dict({"keys": issuer.tokens.list_public(await issuer.policy())}).keys
    claims = jwt.decode(
        await issuer.issue(), key, ["EdDSA"], audience=RULES.service, issuer=RULES.service
    )
    assert claims["sub"] == "ann"


async def test_nobody_else_can_make_one(issuer: Issuer) -> None:
    policy = await issuer.policy()
    good = await issuer.issue()
    (verification,) = public_keys({"keys": issuer.tokens.list_public(policy)}).values()
    forgeries = list(forged(RULES.service, RULES.service, good, verification.key))  # type: ignore[arg-type]
    assert len(forgeries) >= 20
    for name, token in forgeries:
        with pytest.raises(TokenInvalidError):
            issuer.tokens.read(token, policy)
        read_issuer(token)
        assert token != good, name


async def test_signed_by_us_and_still_not_good(issuer: Issuer) -> None:
    policy = await issuer.policy()
    header, claims = parts(await issuer.issue())
    private = await issuer.keyring.get_private(header["kid"])
    assert issuer.tokens.read(assemble(header, claims, signer(private)), policy).principal == ANN
    changes: list[dict[str, Any]] = [
        *({"iss": "another"}, {"aud": "another"}, {"exp": 1}, {"nbf": 2**33}, {"sub": None}),
        *({"credential": None}, {"credential": 1}, {"policy": None}, {"policy": "1"}, {"iat": "1"}),
    ]
    for change in changes:
        token = assemble(header, {**claims, **change}, signer(private))
        with pytest.raises(TokenInvalidError):
            issuer.tokens.read(token, policy)


async def test_a_token_is_for_one_registry(issuer: Issuer) -> None:
    """A token is refused by another registry even if both share their keys."""
    other = TokenIssuer(issuer.keyring, replace(RULES, service="another.example.org"))
    with pytest.raises(TokenInvalidError):
        other.read(await issuer.issue(), await issuer.policy())


async def test_it_expires(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    token, policy = await issuer.issue(), await issuer.policy()
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now + int((300 + LEEWAY - 2) * 1_000_000))
    issuer.tokens.read(token, policy)
    monkeypatch.setattr(clock, "now_us", lambda: now + int((300 + LEEWAY + 2) * 1_000_000))
    with pytest.raises(TokenInvalidError, match="expired"):
        issuer.tokens.read(token, policy)


async def test_keys_rotate_without_breaking_tokens_in_use(issuer: Issuer) -> None:
    old = await issuer.issue()
    await issuer.keyring.add_key()
    policy = await issuer.policy()
    new = await issuer.issue()
    assert parts(old)[0]["kid"] != parts(new)[0]["kid"]
    for token in (old, new):
        assert issuer.tokens.read(token, policy).principal == ANN
    assert len(issuer.tokens.list_public(policy)) == 2


async def test_a_revoked_key_is_refused_at_once(issuer: Issuer) -> None:
    old = await issuer.issue()
    kid = parts(old)[0]["kid"]
    issuer.tokens.read(old, await issuer.policy())
    await issuer.keyring.add_key()
    await issuer.database.write(lambda tx: signing_keys.revoke(tx, kid), actor="")
    policy = await issuer.policy()
    assert not issuer.tokens.is_trusted(kid, policy)
    with pytest.raises(TokenInvalidError):
        issuer.tokens.read(old, policy)
    assert kid not in {jwk["kid"] for jwk in issuer.tokens.list_public(policy)}
    assert issuer.tokens.read(await issuer.issue(), policy).principal == ANN


async def test_without_a_key_it_names_the_remedy(issuer: Issuer) -> None:
    (key,) = (await issuer.policy()).keys
    await issuer.database.write(lambda tx: signing_keys.revoke(tx, key), actor="")
    with pytest.raises(ConfigError, match="moorage key rotate"):
        await issuer.issue()


def long_names(count: int) -> list[RepositoryName]:
    names = [RepositoryName.parse(f"{number:04}/" + "n" * 250) for number in range(count)]
    assert all(len(str(name)) == 255 for name in names)
    return names


def varied_names(count: int) -> list[RepositoryName]:
    """Return names that do not compress."""
    random = Random(11)
    return [
        RepositoryName("".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=255)))
        for _ in range(count)
    ]


LONGEST_PRINCIPAL = Principal("a" * 254, "user:" + "a" * 254 + ":" + "0" * 32)
LONGEST_RULES = AuthSettings(service="s" * 128)


@pytest.mark.parametrize("names", [long_names(SURE), varied_names(SURE)], ids=["alike", "varied"])
async def test_all_that_is_granted_fits_up_to_500_repositories(
    issuer: Issuer, names: list[RepositoryName]
) -> None:
    sets = (EVERYTHING, frozenset({Action.PULL}), frozenset({Action.PULL, Action.PUSH}))
    granted = {name: sets[number % 3] for number, name in enumerate(names)}
    tokens = TokenIssuer(issuer.keyring, LONGEST_RULES)
    policy = await issuer.policy()
    issued = await tokens.issue(LONGEST_PRINCIPAL, Scopes(granted, catalog=True), policy)
    assert len(issued.token) <= LONGEST == 7 * 1024
    assert issued.scopes.repositories == granted
    read = tokens.read(issued.token, policy)
    assert read.principal == LONGEST_PRINCIPAL
    assert {name: read.scopes.actions_in(name) for name in names} == granted
    assert read.scopes.catalog
    assert read.scopes.names is None
    for other in (*long_names(SURE + 50)[SURE:], RepositoryName("n"), APP):
        assert read.scopes.actions_in(other) == frozenset()


async def test_what_fits_is_named_for_other_servers(issuer: Issuer) -> None:
    names = [RepositoryName(f"team/r{number:04}") for number in range(50)]
    token = await issuer.issue(scopes=Scopes(dict.fromkeys(names, EVERYTHING)))
    claims = parts(token)[1]
    assert [entry["name"] for entry in claims["access"]] == [str(name) for name in names]
    assert "access_digests" not in claims


async def test_more_than_fits_is_an_error_that_says_so(issuer: Issuer) -> None:
    asked = Scopes(dict.fromkeys(long_names(1000), EVERYTHING))
    with pytest.raises(TooManyScopesError, match="1000 repositories") as caught:
        await issuer.issue(scopes=asked)
    assert caught.value.detail == {"repositories": 1000, "limit": SURE}


async def test_digests_are_of_one_token(issuer: Issuer) -> None:
    scopes = Scopes(dict.fromkeys(long_names(100), EVERYTHING))
    one, other = [parts(await issuer.issue(scopes=scopes))[1] for _ in range(2)]
    assert one["access"] == []
    assert one["access_digests"].keys() == {"pull,push,delete"}
    assert one["access_digests"] != other["access_digests"]


PACKED = [[], "a", 1, None, {"pull": 1}, {"pull": "!"}, {"pull": "AAAA"}, {"pull": "é"}]


@pytest.mark.parametrize("claim", PACKED, ids=str)
async def test_packed_scopes_that_are_damaged_are_refused(issuer: Issuer, claim: object) -> None:
    header, claims = parts(await issuer.issue())
    private = await issuer.keyring.get_private(header["kid"])
    token = assemble(header, {**claims, "access_digests": claim}, signer(private))
    with pytest.raises(TokenInvalidError):
        issuer.tokens.read(token, await issuer.policy())


async def test_a_mount_of_long_names_fits_whole(issuer: Issuer) -> None:
    asked = Scopes(dict.fromkeys(long_names(10), EVERYTHING))
    issued = await issuer.tokens.issue(ANN, asked, await issuer.policy())
    assert issued.scopes == asked


async def test_a_token_from_before_a_removal_knows_it(issuer: Issuer) -> None:
    policy = await issuer.policy()
    token = await issuer.issue()

    await issuer.database.write(lambda tx: tx.removed_repositories.append(APP), actor="")
    later = await issuer.policy()
    assert later.revision == policy.revision + 1
    assert later.was_removed(APP, since=issuer.tokens.read(token, later).since)
    again = await issuer.issue()
    assert not later.was_removed(APP, since=issuer.tokens.read(again, later).since)


def unsigned(claims: bytes) -> str:
    return assemble(b'{"alg":"EdDSA"}', claims, lambda _: b"signature")


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("", None),
        ("a.b.c", None),
        (unsigned(b'{"iss":"x"}'), "x"),
        (unsigned(b'{"iss":["x"]}'), None),
        (unsigned(b"{}"), None),
        (unsigned(b"[]"), None),
        (unsigned(b"\xff"), None),
        (unsigned(b"[" * 3000), None),
        ("a" * (MAX_TOKEN + 1), None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_who_says_that_she_made_it(token: str, name: str | None) -> None:
    assert read_issuer(token) == name


@given(st.text() | st.text(alphabet="eyJ0.", max_size=20))
def test_no_text_crashes(text: str) -> None:
    read_issuer(text)
