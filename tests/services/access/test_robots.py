"""Changes of robots, their secrets, and sign-in by an external issuer."""

import asyncio
from collections.abc import Awaitable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.auth.keys.jose import jwk_of
from registry.auth.oidc_settings import OidcRule
from registry.auth.tokens.external_issuers import OidcIssuer
from registry.errors import (
    ConflictError,
    CredentialsInvalidError,
    InputInvalidError,
    TokenInvalidError,
)
from tests.services.access.access_services import (
    HERE,
    ROOT,
    House,
    Time,
    all_at_once,
    wanted,
)
from tests.support.forged_tokens import assemble, good_claims, signer

pytestmark = pytest.mark.anyio


class TestRobots:
    """Robots, whose old and new secrets overlap after a rotation."""

    async def test_it_signs_in_with_its_secret(self, house: House) -> None:
        made = await house.robots.add("ci", None, ROOT)
        assert made.robot.username == "robot+ci"
        assert made.robot.used_at is None
        assert (await house.sign_in("robot+ci", made.secret)).principal.name == "robot+ci"
        for name, secret in (
            ("ci", made.secret),
            ("robot+cd", made.secret),
            ("robot+ci", made.secret[:-1] + "x"),
            ("robot+ci", ""),
        ):
            assert not await house.lets_in(name, secret)
        assert (await house.robots.get("ci")).used_at is not None
        with pytest.raises(ConflictError):
            await house.robots.add("ci", None, ROOT)
        assert made.secret not in repr(made)

    async def test_rotation_overlaps(self, time: Time, house: House) -> None:
        first = (await house.robots.add("ci", None, ROOT)).secret
        second = (await house.robots.rotate("ci", 60, ROOT)).secret
        time.pass_by(59)
        assert await house.lets_in("robot+ci", first)
        assert await house.lets_in("robot+ci", second)
        third = (await house.robots.rotate("ci", 3600, ROOT)).secret
        time.pass_by(1)
        # A second rotation does not prolong the first.
        assert not await house.lets_in("robot+ci", first)
        assert await house.lets_in("robot+ci", second)
        time.pass_by(3600)
        assert not await house.lets_in("robot+ci", second)
        assert await house.lets_in("robot+ci", third)

    async def test_rotation_without_overlap(self, houses: list[House]) -> None:
        first = (await houses[0].robots.add("ci", None, ROOT)).secret
        assert await houses[1].lets_in("robot+ci", first)
        second = (await houses[0].robots.rotate("ci", 0, ROOT)).secret
        assert not await houses[1].lets_in("robot+ci", first)
        assert await houses[1].lets_in("robot+ci", second)

    async def test_it_expires(self, time: Time, house: House) -> None:
        made = await house.robots.add("ci", 60, ROOT)
        assert made.robot.expires_at == time.now + 60_000_000
        time.pass_by(59)
        assert await house.lets_in("robot+ci", made.secret)
        time.pass_by(1)
        assert not await house.lets_in("robot+ci", made.secret)
        again = await house.robots.rotate("ci", 0, ROOT, lifetime=60)
        assert await house.lets_in("robot+ci", again.secret)

    async def test_it_goes_at_once(self, houses: list[House]) -> None:
        await houses[0].keyring.prepare()
        secret = (await houses[0].robots.add("ci", None, ROOT)).secret
        caller = await houses[1].sign_in("robot+ci", secret)
        token = (await houses[1].tokens.issue(caller, wanted(), HERE)).access.token
        await houses[0].robots.remove("ci", ROOT)
        assert not await houses[1].lets_in("robot+ci", secret)
        with pytest.raises(TokenInvalidError):
            await houses[1].auth.authenticate_token(token)
        await houses[0].robots.add("ci", None, ROOT)
        assert not await houses[1].lets_in("robot+ci", secret)

    async def test_what_has_no_time_to_live(self, filled: House) -> None:
        works: list[Awaitable[object]] = [filled.robots.rotate("ci", -1, ROOT)]
        for lifetime in (0, -1):
            works += [
                filled.robots.add("cd", lifetime, ROOT),
                filled.robots.rotate("ci", 0, ROOT, lifetime=lifetime),
                filled.access_tokens.add("ann", "other", ROOT, lifetime=lifetime),
            ]
        assert await all_at_once(works) == [InputInvalidError] * len(works)

    async def test_an_outside_issuer_lets_it_in_while_it_lives(
        self, time: Time, database_url: str
    ) -> None:
        """A token for a deleted robot is refused, and not treated as anonymous."""
        key = Ed25519PrivateKey.generate()
        jwk = jwk_of(key.public_key())

        async def source() -> object:
            return {"keys": [jwk]}

        claims = {**good_claims("gitlab", "second"), "project": "team/app"}
        rules = [OidcRule("ci", {"project": ("team/app",)})]
        # The same issuer is trusted for two audiences.
        issuers = [
            OidcIssuer("gitlab", audience, source, rules, refresh=60)
            for audience in ("first", "second")
        ]
        house = House(database_url, issuers)
        await house.auth.start()
        await asyncio.sleep(0.05)
        await house.robots.add("ci", 60, ROOT)
        await house.grant("robot:ci", "pull")
        await house.grant("anonymous", "pull")
        token = assemble({"alg": "EdDSA", "typ": "JWT", "kid": jwk["kid"]}, claims, signer(key))
        caller = await house.sign_in("oidc", token)
        assert caller.principal.name == "robot+ci"
        time.pass_by(60)
        for text in (token, assemble({"alg": "none"}, claims, lambda _: b"x")):
            assert not await house.lets_in("oidc", text)
        with pytest.raises(CredentialsInvalidError):
            await house.auth.authenticate(caller.principal.credential)
        await house.close()
