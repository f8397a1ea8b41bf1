"""Changes of users, imports of users, and the last user and admin."""

import asyncio
from collections.abc import Awaitable

import bcrypt
import pytest

from registry.auth.policy.actions import (
    ALL_RIGHTS,
)
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.subjects import Subject
from registry.errors import (
    AccountNameInvalidError,
    ConflictError,
    InputInvalidError,
    NotFoundError,
    PasswordInvalidError,
    TokenInvalidError,
)
from registry.metadata import tables
from tests.metadata.rows import rows
from tests.services.access.access_services import (
    APP,
    HERE,
    OTHER,
    PASSWORD,
    ROOT,
    TEAM,
    House,
    all_at_once,
    wanted,
)

pytestmark = pytest.mark.anyio


class TestUsers:
    """User accounts."""

    async def test_she_signs_in_with_her_password(self, house: House) -> None:
        added = await house.users.add("ann", PASSWORD, ROOT, admin=True)
        assert (added.name, added.admin, added.disabled) == ("ann", True, False)
        assert await house.users.get("ann") == added
        caller = await house.sign_in("ann", PASSWORD)
        assert caller.principal.name == "ann"
        assert caller.rights_in(APP) == ALL_RIGHTS
        assert not await house.lets_in("ann", OTHER)
        assert not await house.lets_in("bob", PASSWORD)

    async def test_what_cannot_be_added(self, house: House) -> None:
        assert not await house.users.is_any()
        for name in ("@nn", "anonymous", "", "a/b"):
            with pytest.raises(AccountNameInvalidError):
                await house.users.add(name, PASSWORD, ROOT)
        with pytest.raises(PasswordInvalidError):
            await house.users.add("ann", "short", ROOT)
        assert not await house.users.is_any()
        await house.users.add("ann", PASSWORD, ROOT)
        with pytest.raises(ConflictError):
            await house.users.add("ann", OTHER, ROOT)
        assert await house.lets_in("ann", PASSWORD)
        assert len(await house.audit_log()) == 1

    async def test_one_name_is_added_once(self, houses: list[House]) -> None:
        errors = await all_at_once([each.users.add("ann", None, ROOT) for each in houses * 4])
        assert errors == [ConflictError] * 7

    async def test_one_without_a_password_does_not_sign_in_with_any(self, house: House) -> None:
        await house.users.add("ann", None, ROOT)
        for password in ("", "None", PASSWORD):
            assert not await house.lets_in("ann", password)

    async def test_who_is_not_there(self, filled: House) -> None:
        users = filled.users
        works: list[Awaitable[object]] = [
            users.get("cy"),
            users.set_password("cy", PASSWORD, ROOT),
            users.change("cy", ROOT, admin=True),
            users.remove("cy", ROOT),
            filled.groups.add_member("devs", "cy", ROOT),
            filled.groups.remove_member("devs", "bob", ROOT),
            filled.groups.add_member("ops", "ann", ROOT),
            filled.groups.remove("ops", ROOT),
            filled.groups.get("ops"),
            filled.robots.get("cd"),
            filled.robots.rotate("cd", 0, ROOT),
            filled.robots.remove("cd", ROOT),
            filled.access_tokens.add("cy", "laptop", ROOT),
            filled.access_tokens.list_of("cy"),
            filled.access_tokens.revoke("ann", "none", ROOT),
            filled.access_tokens.revoke("bob", "laptop", ROOT),
            filled.grant("cy", "pull"),
            filled.grant("group:ann", "pull"),
            filled.grant("robot:ann", "pull"),
            filled.grants.remove(Subject.parse("bob"), TEAM, ROOT),
            filled.grants.remove(Subject.parse("ann"), RepositoryPattern.parse("**"), ROOT),
            filled.grants.get(999),
            filled.keys.revoke("none", ROOT),
        ]
        before = await filled.audit_log()
        assert await all_at_once(works) == [NotFoundError] * len(works)
        assert await filled.audit_log() == before

    async def test_another_password_ends_what_the_old_one_began(self, houses: list[House]) -> None:
        here, there = houses
        await here.users.add("ann", PASSWORD, ROOT)
        caller = await there.sign_in("ann", PASSWORD)
        token = (await there.tokens.issue(caller, wanted(), HERE)).access.token
        await there.auth.authenticate_token(token)
        await here.users.set_password("ann", OTHER, ROOT)
        assert not await there.lets_in("ann", PASSWORD)
        assert await there.lets_in("ann", OTHER)
        with pytest.raises(TokenInvalidError):
            await there.auth.authenticate_token(token)
        with pytest.raises(PasswordInvalidError):
            await here.users.set_password("ann", "short", ROOT)

    async def test_whoever_is_shut_out_is_out_at_once(self, houses: list[House]) -> None:
        here, there = houses
        await here.fill()
        made = await here.access_tokens.add("ann", "ci", ROOT)
        for password in (PASSWORD, made.secret):
            assert await there.lets_in("ann", password)
        assert (await here.users.change("ann", ROOT, disabled=True)).disabled
        for password in (PASSWORD, made.secret):
            assert not await there.lets_in("ann", password)
        await here.users.change("ann", ROOT, disabled=False)
        assert await there.lets_in("ann", PASSWORD)

    async def test_a_change_that_changes_nothing_is_not_written_down(self, filled: House) -> None:
        before = await filled.audit_log()
        await filled.users.change("ann", ROOT, disabled=False, admin=False)
        await filled.users.change("ann", ROOT)
        await filled.groups.add_member("devs", "ann", ROOT)
        assert await filled.audit_log() == before
        assert await filled.lets_in("ann", PASSWORD)

    async def test_the_last_one_stays(self, house: House) -> None:
        await house.users.add("ann", None, ROOT, admin=True)
        with pytest.raises(ConflictError, match="last user"):
            await house.users.remove("ann", ROOT)
        assert await house.users.is_any()
        await house.users.add("bob", None, ROOT)
        with pytest.raises(ConflictError, match="last admin"):
            await house.users.remove("ann", ROOT)
        await house.users.change("bob", ROOT, admin=True)
        await house.users.remove("ann", ROOT)
        with pytest.raises(ConflictError, match="last user"):
            await house.users.remove("bob", ROOT)

    @pytest.mark.parametrize("count", [2, 4])
    async def test_the_last_one_stays_whoever_is_removed_at_once(
        self, houses: list[House], count: int
    ) -> None:
        names = [f"user{number}" for number in range(count)]
        for name in names:
            await houses[0].users.add(name, None, ROOT)
        errors = await all_at_once(
            [houses[number % 2].users.remove(name, ROOT) for number, name in enumerate(names)]
        )
        assert errors == [ConflictError]
        assert len(await houses[0].users.list_page(10)) == 1
        removed = [row for row in await houses[0].audit_log() if row.kind == "user.delete"]
        assert len(removed) == count - 1


BAD_LINES = [
    "bob",
    "bob:",
    "bob:plain",
    "bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    "bob:$apr1$3VHRGJGz$5xGKpPPLxUDmW3nNVpVqt/",
    "bob:$2y$10$short",
    "bob:$2y$99$" + "a" * 53,
    "bob:$2y$03$" + "a" * 53,
    "bob:$2y$31$" + "a" * 53,
    "bob:$2x$10$" + "a" * 53,
    "b b:$2y$10$" + "a" * 53,
    "anonymous:$2y$10$" + "a" * 53,
    "b:ob:$2y$10$" + "a" * 53,
    "bob:$2y$10$" + "a" * 53 + ":more",
]


class TestImports:
    """Files of `htpasswd -B`."""

    def line(self, name: str, password: str = PASSWORD, prefix: str = "2y") -> str:
        made = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        return f"{name}:{made.replace('$2b$', f'${prefix}$')}"

    async def test_they_sign_in_and_are_hashed_anew(self, house: House) -> None:
        lines = ["# team", "", self.line("ann") + "\n", self.line("bob", OTHER, "2b")]
        imported = await house.users.import_htpasswd(lines, ROOT)
        assert (imported.added, imported.existing) == (["ann", "bob"], [])
        before = {row.name: row.password_hash for row in await rows(house.database, tables.users)}
        assert not await house.lets_in("ann", OTHER)
        assert await house.lets_in("ann", PASSWORD)
        after = {row.name: row.password_hash for row in await rows(house.database, tables.users)}
        assert after["ann"].startswith("$argon2id$")
        assert after["bob"] == before["bob"]
        house.auth._signed_in._values.clear()
        assert await house.lets_in("ann", PASSWORD)
        assert [row.target for row in await house.audit_log() if row.kind == "user.create"] == [
            "ann",
            "bob",
        ]

    async def test_those_who_are_there_stay(self, house: House) -> None:
        await house.users.add("ann", OTHER, ROOT, admin=True)
        imported = await house.users.import_htpasswd(
            [self.line("ann"), self.line("bob"), self.line("bob", OTHER)], ROOT
        )
        assert (imported.added, imported.existing) == (["bob"], ["ann", "bob"])
        assert await house.lets_in("ann", OTHER)
        assert not await house.lets_in("ann", PASSWORD)
        assert await house.lets_in("bob", PASSWORD)
        assert (await house.users.get("ann")).admin
        assert len(await house.audit_log()) == 2 + 1  # The third entry is a failed sign-in.

    async def test_all_or_none(self, house: House) -> None:
        for bad in BAD_LINES:
            with pytest.raises(InputInvalidError) as caught:
                await house.users.import_htpasswd([self.line("ann"), bad, self.line("cy")], ROOT)
            assert "line 2" in caught.value.message
            hidden = bad.rpartition(":")[2]
            assert len(hidden) < 6 or hidden not in caught.value.message
        assert not await house.users.is_any()
        assert await house.audit_log() == []

    async def test_names_as_in_e_mail_addresses(self, house: House) -> None:
        names = ["ann@example.org", "Bob", "_cy", "Ann.Lee+ci@Example.ORG"]
        imported = await house.users.import_htpasswd([self.line(name) for name in names], ROOT)
        assert imported.added == names
        for name in names:
            assert await house.lets_in(name, PASSWORD)
            await house.grant(name, "pull")
            assert await house.may(name, "pull")
        assert not await house.lets_in("bob", PASSWORD)

    async def test_all_that_is_refused_is_told_at_once(self, house: House) -> None:
        lines = [self.line("ann"), *BAD_LINES, self.line("cy")]
        with pytest.raises(InputInvalidError) as caught:
            await house.users.import_htpasswd(lines, ROOT)
        heading, *told = caught.value.message.splitlines()
        assert heading.startswith(f"{len(BAD_LINES)} of the lines")
        assert [line.split(":")[0].strip() for line in told] == [
            f"line {number}" for number in range(2, 2 + len(BAD_LINES))
        ]
        imported = await house.users.import_htpasswd(lines, ROOT, skip_invalid=True)
        assert imported.added == ["ann", "cy"]
        assert imported.invalid == [line.strip() for line in told]


class TestAdmins:
    """Once the registry has an administrator, one always remains."""

    async def test_the_last_one_stays(self, house: House) -> None:
        await house.users.add("ann", PASSWORD, ROOT, admin=True)
        await house.users.add("bob", PASSWORD, ROOT)
        before = len(await house.audit_log())
        for attempt in (
            house.users.change("ann", ROOT, admin=False),
            house.users.change("ann", ROOT, disabled=True),
            house.users.remove("ann", ROOT),
        ):
            with pytest.raises(ConflictError, match="moorage user change NAME --admin"):
                await attempt
        assert len(await house.audit_log()) == before
        await house.users.change("ann", ROOT, admin=True, disabled=False)
        await house.users.change("bob", ROOT, admin=True)
        await house.users.change("bob", ROOT, disabled=True)
        with pytest.raises(ConflictError):  # bob cannot sign in
            await house.users.remove("ann", ROOT)
        await house.users.change("bob", ROOT, disabled=False)
        await house.users.remove("ann", ROOT)
        with pytest.raises(ConflictError):
            await house.users.change("bob", ROOT, admin=False)

    async def test_where_nobody_is_one_nobody_stays(self, house: House) -> None:
        await house.users.add("ann", PASSWORD, ROOT)
        await house.users.add("bob", PASSWORD, ROOT)
        await house.users.change("ann", ROOT, disabled=True)
        await house.users.remove("ann", ROOT)

    async def test_two_removed_at_once_leave_one(self, houses: list[House]) -> None:
        await houses[0].users.add("cy", PASSWORD, ROOT)
        for number in range(5):
            one, other = f"ann{number}", f"bob{number}"
            for name in (one, other):
                await houses[0].users.add(name, None, ROOT, admin=True)
            for row in await houses[0].users.list_page(99):
                if row.admin and row.name not in {one, other}:
                    await houses[0].users.remove(row.name, ROOT)
            done = await asyncio.gather(
                houses[0].users.remove(one, ROOT),
                houses[1].users.change(other, ROOT, admin=False),
                return_exceptions=True,
            )
            assert sum(isinstance(each, ConflictError) for each in done) == 1, done
            assert sum(row.admin for row in await houses[0].users.list_page(99)) == 1

    async def test_the_first_one_is_added_once(self, houses: list[House]) -> None:
        added = await asyncio.gather(
            *(each.users.add_first_admin("admin", PASSWORD) for each in houses * 2)
        )
        assert sorted(added) == [False, False, False, True]
        assert await houses[0].lets_in("admin", PASSWORD)
        assert (await houses[0].users.get("admin")).admin
        assert not await houses[1].users.add_first_admin("other", OTHER)
        assert [row.name for row in await houses[0].users.list_page(9)] == ["admin"]
