"""Personal access tokens."""

from collections.abc import Awaitable

import pytest
import sqlalchemy as sa

from registry.auth.policy.actions import (
    NO_RIGHTS,
)
from registry.auth.policy.grants import Bound
from registry.errors import (
    ConflictError,
    InputInvalidError,
)
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.services.access import access_tokens
from tests.services.access.access_services import (
    APP,
    PASSWORD,
    PULL,
    ROOT,
    TEAM,
    House,
    Time,
    all_at_once,
)

pytestmark = pytest.mark.anyio


class TestAccessTokens:
    """Personal access tokens: limited in scope and lifetime."""

    async def test_it_may_no_more_than_it_says(self, filled: House) -> None:
        await filled.grant("ann", "push", "delete", pattern="**")
        bounds = [Bound(TEAM, PULL)]
        made = await filled.access_tokens.add("ann", "ci", ROOT, bounds=bounds)
        caller = await filled.sign_in("ann", made.secret)
        assert caller.principal.name == "ann"
        assert caller.rights_in(APP) == PULL
        assert caller.rights_in(RepositoryName("other/app")) == NO_RIGHTS
        assert made.secret not in repr(made)
        (listed, laptop) = await filled.access_tokens.list_of("ann")
        assert (listed.name, listed.bounds) == ("ci", tuple(bounds))
        assert laptop.bounds is None
        assert listed.used_at is not None
        assert laptop.used_at is None

    async def test_none_at_all_is_a_bound_too(self, filled: House) -> None:
        made = await filled.access_tokens.add("ann", "nothing", ROOT, bounds=[])
        assert (await filled.sign_in("ann", made.secret)).rights_in(APP) == NO_RIGHTS

    async def test_bounds_that_cannot_be_read_again_are_refused(self, filled: House) -> None:
        """Nobody could sign in with such a token."""
        with pytest.raises(InputInvalidError):
            await filled.access_tokens.add("ann", "bad", ROOT, bounds=[Bound(TEAM, NO_RIGHTS)])
        assert await filled.lets_in("ann", PASSWORD)

    async def test_one_that_cannot_be_read_is_shut_out_alone(self, filled: House) -> None:
        """An unreadable token is refused, but it can still be listed and revoked."""
        made = await filled.access_tokens.add("ann", "ci", ROOT)
        assert await filled.lets_in("ann", made.secret)

        def break_it(tx: Transaction) -> None:
            table = tables.secrets
            tx.execute(sa.update(table).where(table.c.name == "ci").values(scopes='[["team/*"'))
            tx.change_policy()

        await filled.database.write(break_it, actor="")
        assert not await filled.lets_in("ann", made.secret)
        assert await filled.lets_in("ann", PASSWORD)
        assert [token.bounds for token in await filled.access_tokens.list_of("ann")] == [(), None]
        await filled.access_tokens.revoke("ann", "ci", ROOT)

    async def test_there_is_an_end_to_them(
        self, houses: list[House], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every worker keeps tokens in memory, so concurrent requests obey the limit too."""
        assert access_tokens.MOST == 100
        monkeypatch.setattr(access_tokens, "MOST", 4)
        await houses[0].fill()  # Ann already has one token.
        works: list[Awaitable[object]] = [
            houses[number % 2].access_tokens.add("ann", f"t{number}", ROOT, lifetime=60)
            for number in range(8)
        ]
        assert await all_at_once(works) == [ConflictError] * 5
        with pytest.raises(ConflictError, match=r"ann has 4 tokens.*revoke"):
            await houses[0].access_tokens.add("ann", "more", ROOT)
        assert len(await houses[0].access_tokens.list_of("ann")) == 4
        await houses[0].access_tokens.add("bob", "laptop", ROOT)
        await houses[0].access_tokens.revoke("ann", "laptop", ROOT)
        await houses[0].access_tokens.add("ann", "more", ROOT)

    async def test_those_that_have_expired_make_room(
        self, time: Time, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access_tokens, "MOST", 3)
        for user in ("ann", "bob"):
            await house.users.add(user, None, ROOT)
            for number in range(3):
                lifetime = 60.0 if number else None
                await house.access_tokens.add(user, f"t{number}", ROOT, lifetime=lifetime)
        time.pass_by(61)
        await house.access_tokens.add("ann", "more", ROOT)
        kept = {user: await house.access_tokens.list_of(user) for user in ("ann", "bob")}
        assert [token.name for token in kept["ann"]] == ["more", "t0"]
        assert len(kept["bob"]) == 3

    async def test_it_expires(self, time: Time, house: House) -> None:
        await house.users.add("ann", None, ROOT)
        made = await house.access_tokens.add("ann", "ci", ROOT, lifetime=60)
        assert made.token.expires_at == time.now + 60_000_000
        time.pass_by(59)
        assert await house.lets_in("ann", made.secret)
        time.pass_by(1)
        assert not await house.lets_in("ann", made.secret)

    async def test_it_is_revoked_at_once(self, houses: list[House]) -> None:
        await houses[0].fill()
        made = await houses[0].access_tokens.add("ann", "ci", ROOT)
        assert await houses[1].lets_in("ann", made.secret)
        await houses[0].access_tokens.revoke("ann", "ci", ROOT)
        assert not await houses[1].lets_in("ann", made.secret)
        assert await houses[1].lets_in("ann", PASSWORD)

    async def test_names(self, filled: House) -> None:
        with pytest.raises(ConflictError):
            await filled.access_tokens.add("ann", "laptop", ROOT)
        await filled.access_tokens.add("bob", "laptop", ROOT)
        for name in ("", " ", "a" * 65, "a/b", "a b", "-a", "a\n", "é", "\ud800"):
            with pytest.raises(InputInvalidError):
                await filled.access_tokens.add("ann", name, ROOT)
