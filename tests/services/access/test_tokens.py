"""Tokens of the token endpoint, and refresh tokens."""

import pytest

from registry.auth.policy.actions import (
    NO_RIGHTS,
    Action,
)
from registry.auth.policy.subjects import Subject
from registry.errors import (
    CredentialsInvalidError,
    TokenInvalidError,
)
from tests.services.access.access_services import (
    APP,
    HERE,
    OTHER,
    PASSWORD,
    PULL,
    ROOT,
    TEAM,
    House,
    wanted,
)

pytestmark = pytest.mark.anyio


class TestTokens:
    """Tokens for the allowed part of the requested scopes."""

    async def test_less_than_asked_is_no_error(self, filled: House) -> None:
        caller = await filled.sign_in("ann", PASSWORD)
        granted = await filled.tokens.issue(caller, wanted(), HERE)
        assert granted.refresh is None
        assert granted.access.scopes.repositories == {APP: frozenset({Action.PULL})}
        bob = (await filled.auth.authenticate_token(granted.access.token)).rights_in(APP)
        assert bob == PULL

    async def test_a_token_is_an_upper_bound(self, filled: House) -> None:
        caller = await filled.sign_in("ann", PASSWORD)
        token = (await filled.tokens.issue(caller, wanted(), HERE)).access.token
        await filled.grant("ann", "push", "delete")
        assert (await filled.auth.authenticate_token(token)).rights_in(APP) == PULL
        for subject in ("ann", "group:devs"):
            await filled.grants.remove(Subject.parse(subject), TEAM, ROOT)
        assert (await filled.auth.authenticate_token(token)).rights_in(APP) == NO_RIGHTS

    async def test_a_refresh_token_is_good_again_and_again(self, filled: House) -> None:
        caller = await filled.sign_in("ann", PASSWORD)
        refresh = (await filled.tokens.issue(caller, wanted(offline=True), HERE)).refresh
        assert refresh is not None
        for _ in range(3):
            found = await filled.tokens.find_refresher(refresh, "moorage", HERE)
            assert found.principal.name == "ann"
        for text, service in ((refresh, "other"), (refresh[:-1] + "x", "moorage"), ("", "moorage")):
            with pytest.raises(CredentialsInvalidError):
                await filled.tokens.find_refresher(text, service, HERE)
        assert await filled.lets_in("ann", refresh)
        with pytest.raises(TokenInvalidError):
            await filled.auth.authenticate_token(refresh)
        await filled.users.set_password("ann", OTHER, ROOT)
        with pytest.raises(CredentialsInvalidError):
            await filled.tokens.find_refresher(refresh, "moorage", HERE)

    async def test_one_that_is_not_good_is_a_failure_in_the_audit_log(self, filled: House) -> None:
        """A valid token is also a failure if it is for another service or its user is disabled."""
        caller = await filled.sign_in("ann", PASSWORD)
        refresh = (await filled.tokens.issue(caller, wanted(offline=True), HERE)).refresh
        assert refresh is not None
        last = (await filled.audit_log())[-1].number
        for text, service in ((refresh[:-1] + "x", "moorage"), (refresh, "other")):
            with pytest.raises(CredentialsInvalidError):
                await filled.tokens.find_refresher(text, service, HERE)
        await filled.users.change("ann", ROOT, disabled=True)
        with pytest.raises(CredentialsInvalidError):
            await filled.tokens.find_refresher(refresh, "moorage", HERE)
        booked = [row for row in await filled.audit_log(last) if row.kind == "sign-in.fail"]
        assert len(booked) == 3
        assert {row.address for row in booked} == {HERE.address}

    async def test_anybody_gets_what_everybody_may(self, filled: House) -> None:
        await filled.grant("anonymous", "pull")
        anybody = await filled.auth.anonymous()
        granted = await filled.tokens.issue(anybody, wanted(offline=True), HERE)
        assert granted.refresh is None
        assert granted.access.scopes.repositories == {APP: frozenset({Action.PULL})}
