"""Signing keys, and the cleanup of what no longer matters."""

import asyncio

import pytest

from registry.errors import (
    TokenInvalidError,
)
from registry.metadata import tables
from registry.services.access.keys import KeyState
from tests.metadata.rows import rows
from tests.services.access.access_services import (
    APP,
    DAY,
    HERE,
    OTHER,
    PASSWORD,
    ROOT,
    House,
    Time,
    wanted,
)

pytestmark = pytest.mark.anyio


class TestKeys:
    """Signing keys."""

    async def states(self, house: House) -> dict[str, str]:
        return {key.kid: key.state.value for key in await house.keys.list_all()}

    async def test_tokens_in_use_outlast_a_rotation(self, filled: House) -> None:
        caller = await filled.sign_in("ann", PASSWORD)
        token = (await filled.tokens.issue(caller, wanted(), HERE)).access.token
        kid = await filled.keys.rotate(ROOT)
        assert (await self.states(filled))[kid] == KeyState.ACTIVE
        assert (await filled.auth.authenticate_token(token)).principal.name == "ann"

    async def test_a_revoked_one_makes_way_for_another(self, houses: list[House]) -> None:
        here, there = houses
        await here.fill()
        (first,) = await self.states(here)
        caller = await there.sign_in("ann", PASSWORD)
        token = (await there.tokens.issue(caller, wanted(), HERE)).access.token
        await there.auth.authenticate_token(token)
        await here.keys.revoke(first, ROOT)
        states = await self.states(here)
        assert states.pop(first) == KeyState.REVOKED
        assert list(states.values()) == [KeyState.ACTIVE]
        with pytest.raises(TokenInvalidError):
            await there.auth.authenticate_token(token)
        again = await there.sign_in("ann", PASSWORD)
        new = (await there.tokens.issue(again, wanted(), HERE)).access.token
        assert (await here.auth.authenticate_token(new)).principal.name == "ann"

    async def test_one_that_does_not_sign_is_revoked_alone(self, filled: House) -> None:
        (first,) = await self.states(filled)
        second = await filled.keys.rotate(ROOT)
        await filled.keys.revoke(first, ROOT)
        assert await self.states(filled) == {first: KeyState.REVOKED, second: KeyState.ACTIVE}

    async def test_changes_at_once_leave_one_that_signs(self, houses: list[House]) -> None:
        await houses[0].fill()
        for _ in range(4):
            states = await self.states(houses[0])
            (active,) = [kid for kid, state in states.items() if state == KeyState.ACTIVE]
            await asyncio.gather(
                houses[0].keys.revoke(active, ROOT),
                houses[1].keys.revoke(active, ROOT),
                houses[1].keys.rotate(ROOT),
            )
            states = await self.states(houses[0])
            assert states[active] == KeyState.REVOKED
            assert list(states.values()).count(KeyState.ACTIVE) == 1

    async def test_old_ones_are_forgotten_with_their_private_half(
        self, time: Time, house: House
    ) -> None:
        await house.users.add("ann", None, ROOT)
        await house.keys.rotate(ROOT)
        assert await house.keys.drop_retired() == 0
        time.pass_by(3 * DAY)
        assert await house.keys.drop_retired() == 1
        (kid,) = await self.states(house)
        kept = {row.name for row in await rows(house.database, tables.private_keys)}
        assert kept == {"secrets", kid}


async def test_what_no_longer_matters_is_forgotten(time: Time, house: House) -> None:
    await house.fill()
    first = (await house.robots.add("cd", None, ROOT)).secret
    await house.robots.rotate("cd", 60, ROOT)
    await house.keys.rotate(ROOT)
    await house.database.write(lambda tx: tx.removed_repositories.append(APP), actor="")
    assert not await house.lets_in("ann", OTHER)
    assert await house.access_cleanup.run() == 0
    time.pass_by(31 * DAY)
    assert await house.access_cleanup.run() == 4
    assert await rows(house.database, tables.removed_repositories) == []
    assert await rows(house.database, tables.sign_in_failures) == []
    assert await house.access_cleanup.run() == 0
    assert not await house.lets_in("robot+cd", first)
    assert await house.lets_in("ann", PASSWORD)
    assert await house.audit.trim(40 * DAY) == 0
    assert await house.audit.trim(30 * DAY) > 10
    assert [row.kind for row in await house.audit_log()] == ["sign-in.fail"]  # just now
