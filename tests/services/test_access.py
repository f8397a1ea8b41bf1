"""Changes of users, robots, groups, grants, tokens and keys, and their audit log."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bcrypt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import clock
from registry.auth.audit_log import Actor
from registry.auth.authenticator import Authenticator
from registry.auth.caller import Caller
from registry.auth.client_address import ClientAddress
from registry.auth.keys.jose import jwk_of
from registry.auth.keys.key_store import DatabaseKeyStore
from registry.auth.keys.keyring import Keyring
from registry.auth.oidc_settings import OidcRule
from registry.auth.policy.actions import (
    ALL_RIGHTS,
    NO_RIGHTS,
    Action,
    GrantAction,
    Rights,
    parse_rights,
)
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy import Bound
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.scopes import Scopes
from registry.auth.policy.subjects import Subject
from registry.auth.settings import AuthSettings
from registry.auth.tokens.external_issuers import OidcIssuer
from registry.errors import (
    AccountNameInvalidError,
    ConflictError,
    CredentialsInvalidError,
    InputInvalidError,
    NotFoundError,
    PasswordInvalidError,
    RegistryError,
    TokenInvalidError,
)
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.services.access import access_tokens
from registry.services.access.access_cleanup import AccessCleanup
from registry.services.access.access_tokens import AccessTokens
from registry.services.access.audit import Audit, AuditRow
from registry.services.access.grants import Grants
from registry.services.access.groups import Groups
from registry.services.access.keys import Keys, KeyState
from registry.services.access.robots import Robots
from registry.services.access.tokens import TokenRequest, Tokens
from registry.services.access.users import Users
from tests.metadata.rows import rows
from tests.support.forging import assemble, good_claims, signer

pytestmark = pytest.mark.anyio

ROOT = Actor("root", ClientAddress("192.0.2.9", "request-1"))
HERE = ClientAddress("192.0.2.10", "request-2")
PASSWORD, OTHER = "correct horse", "battery staple"
APP = RepositoryName("team/app")
TEAM = RepositoryPattern.parse("team/*")
PULL = frozenset({GrantAction.PULL})
DAY = 86_400.0


class House:
    """The access services of one process over one database."""

    def __init__(self, url: str, oidc: Sequence[OidcIssuer] = ()) -> None:
        rules = AuthSettings()
        self.database = Database(url)
        self.keyring = Keyring(self.database, DatabaseKeyStore(self.database, "s" * 32))
        self.watch = RevisionWatch(self.database)
        self.policies = PolicyCache(self.database, self.watch, personal_namespaces=False)
        self.auth = Authenticator(
            self.database, self.policies, self.keyring, rules, oidc=oidc, failed_sign_ins=0
        )
        self.users = Users(self.database, self.keyring, self.auth.passwords)
        self.groups = Groups(self.database)
        self.robots = Robots(self.database, self.keyring)
        self.access_tokens = AccessTokens(self.database, self.keyring)
        self.grants = Grants(self.database, self.policies)
        self.keys = Keys(self.database, self.keyring)
        self.tokens = Tokens(self.database, self.auth, self.keyring)
        self.tidying = AccessCleanup(self.database, self.keys)
        self.audit = Audit(self.database)

    async def close(self) -> None:
        await self.auth.close()
        self.watch.close()
        await self.database.close()

    async def fill(self) -> None:
        """Add a user with a group, a robot, a token, and a grant to each subject."""
        await self.users.add("ann", PASSWORD, ROOT)
        await self.users.add("bob", None, ROOT)
        await self.groups.add("devs", ROOT)
        await self.groups.add_member("devs", "ann", ROOT)
        await self.robots.add("ci", None, ROOT)
        await self.access_tokens.add("ann", "laptop", ROOT)
        for subject in ("ann", "group:devs", "robot:ci"):
            await self.grant(subject, "pull")

    async def grant(self, subject: str, *actions: str, pattern: str = "team/*") -> Rights:
        given = await self.grants.add(
            Subject.parse(subject), RepositoryPattern.parse(pattern), parse_rights(actions), ROOT
        )
        return given.rights

    async def may(self, subject: str, *actions: str) -> bool:
        decision = await self.grants.check(Subject.parse(subject), APP, parse_rights(actions))
        return decision.allowed

    async def sign_in(self, name: str, password: str) -> Caller:
        return await self.auth.authenticate_password(name, password, HERE)

    async def lets_in(self, name: str, password: str) -> bool:
        try:
            await self.sign_in(name, password)
        except CredentialsInvalidError:
            return False
        return True

    async def books(self, after: int = 0) -> list[AuditRow]:
        return await self.audit.list_page(1000, after=after)


@pytest.fixture
async def house(database_url: str, anyio_backend: str) -> AsyncIterator[House]:
    del anyio_backend
    opened = House(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def houses(house: House, database_url: str) -> AsyncIterator[list[House]]:
    """Yield two replicas."""
    other = House(database_url)
    yield [house, other]
    await other.close()


@pytest.fixture
async def filled(house: House) -> House:
    await house.fill()
    return house


async def all_at_once(works: list[Awaitable[object]]) -> list[type[BaseException]]:
    """Return the types of the errors of those that failed."""
    told = await asyncio.gather(*works, return_exceptions=True)
    return [type(one) for one in told if isinstance(one, BaseException)]


@dataclass
class Time:
    """A clock that only the test advances."""

    now: int

    def pass_by(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Replace the clock before the databases open, which read it at that time."""
    time = Time(clock.now_us())
    monkeypatch.setattr(clock, "now_us", lambda: time.now)
    return time


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
        assert len(await house.books()) == 1

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
        before = await filled.books()
        assert await all_at_once(works) == [NotFoundError] * len(works)
        assert await filled.books() == before

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
        before = await filled.books()
        await filled.users.change("ann", ROOT, disabled=False, admin=False)
        await filled.users.change("ann", ROOT)
        await filled.groups.add_member("devs", "ann", ROOT)
        assert await filled.books() == before
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
        removed = [row for row in await houses[0].books() if row.kind == "user.remove"]
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
        assert [row.target for row in await house.books() if row.kind == "user.add"] == [
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
        assert len(await house.books()) == 2 + 1  # The third entry is a failed sign-in.

    async def test_all_or_none(self, house: House) -> None:
        for bad in BAD_LINES:
            with pytest.raises(InputInvalidError) as caught:
                await house.users.import_htpasswd([self.line("ann"), bad, self.line("cy")], ROOT)
            assert "line 2" in caught.value.message
            hidden = bad.rpartition(":")[2]
            assert len(hidden) < 6 or hidden not in caught.value.message
        assert not await house.users.is_any()
        assert await house.books() == []

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
        before = len(await house.books())
        for attempt in (
            house.users.change("ann", ROOT, admin=False),
            house.users.change("ann", ROOT, disabled=True),
            house.users.remove("ann", ROOT),
        ):
            with pytest.raises(ConflictError, match="moorage user change NAME --admin"):
                await attempt
        assert len(await house.books()) == before
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


class TestGroups:
    """Groups of users."""

    async def test_they_fill_and_empty(self, filled: House) -> None:
        assert (await filled.groups.add_member("devs", "bob", ROOT)).members == ["ann", "bob"]
        assert (await filled.groups.remove_member("devs", "ann", ROOT)).members == ["bob"]
        assert (await filled.groups.get("devs")).members == ["bob"]
        assert [group.name for group in await filled.groups.list_page(10)] == ["devs"]
        with pytest.raises(ConflictError):
            await filled.groups.add("devs", ROOT)
        with pytest.raises(AccountNameInvalidError):
            await filled.groups.add("Devs", ROOT)

    async def test_a_right_of_the_group_ends_with_membership(self, filled: House) -> None:
        await filled.grant("group:devs", "push")
        assert await filled.may("ann", "push")
        await filled.groups.remove_member("devs", "ann", ROOT)
        assert not await filled.may("ann", "push")

    async def test_a_member_and_her_group_go_at_once(self, houses: list[House]) -> None:
        for number in range(5):
            user, group = f"user{number}", f"group{number}"
            await houses[0].users.add(user, None, ROOT)
            await houses[0].users.add(f"stays{number}", None, ROOT)
            await houses[0].groups.add(group, ROOT)
            errors = await all_at_once(
                [
                    houses[0].groups.add_member(group, user, ROOT),
                    houses[1].users.remove(user, ROOT),
                    houses[1].groups.remove(group, ROOT),
                ]
            )
            assert set(errors) <= {NotFoundError}
        assert await rows(houses[0].database, tables.group_members) == []


class TestGrants:
    """Grants of actions on patterns."""

    async def test_rights_add_up_and_are_taken_apart(self, filled: House) -> None:
        assert await filled.grant("ann", "create") == parse_rights(["pull", "create"])
        assert await filled.grant("ann", "push") == parse_rights(["pull", "push"])
        assert len(await filled.grants.list_page(10)) == 3
        ann = Subject.parse("ann")
        await filled.grants.remove(ann, TEAM, ROOT, parse_rights(["overwrite"]))
        assert not await filled.may("ann", "push")
        assert await filled.may("ann", "create")
        await filled.grants.remove(ann, TEAM, ROOT)
        assert not await filled.may("ann", "create")
        assert await filled.may("ann", "pull")  # Her group has the grant.

    async def test_what_was_not_given_is_not_taken(self, filled: House) -> None:
        """A caller with `admin` can still push, so revoking an implied action must fail visibly."""
        await filled.grant("bob", "admin")
        before = await filled.books()
        for subject, right in (("ann", "delete"), ("bob", "push")):
            with pytest.raises(NotFoundError):
                await filled.grants.remove(
                    Subject.parse(subject), TEAM, ROOT, parse_rights([right])
                )
        assert await filled.books() == before

    @pytest.mark.parametrize("actions", [["push"], ["pull", "push"], ["admin"], ["delete"]])
    async def test_nobody_pushes_without_signing_in(self, house: House, actions: list[str]) -> None:
        with pytest.raises(InputInvalidError):
            await house.grant("anonymous", *actions)
        assert await house.grants.list_page(10) == []
        assert await house.grant("anonymous", "pull") == PULL

    @pytest.mark.parametrize("subject", ["ann", "group:devs", "robot:ci", "authenticated"])
    async def test_rights_given_at_once_add_up(self, houses: list[House], subject: str) -> None:
        await houses[0].fill()
        for number in range(5):
            pattern = f"other{number}/**"
            given: list[Awaitable[object]] = [
                houses[index % 2].grant(subject, action, pattern=pattern)
                for index, action in enumerate(["pull", "create", "overwrite", "delete"])
            ]
            assert await all_at_once(given) == []
            (row,) = await rows(houses[0].database, tables.grants, pattern=pattern)
            assert row.actions == "pull,push,delete"

    @pytest.mark.parametrize("subject", ["ann", "group:devs", "robot:ci"])
    async def test_they_go_with_their_subject(self, filled: House, subject: str) -> None:
        kind, _, name = subject.rpartition(":")
        nouns: dict[str, Users | Groups | Robots] = {
            "": filled.users,
            "group": filled.groups,
            "robot": filled.robots,
        }
        await nouns[kind].remove(name, ROOT)
        left = {row.subject for row in await rows(filled.database, tables.grants)}
        assert left == {"ann", "group:devs", "robot:ci"} - {subject}
        if kind == "":
            await filled.users.add(name, PASSWORD, ROOT)
            assert await filled.access_tokens.list_of(name) == []
        elif kind == "group":
            assert (await filled.groups.add(name, ROOT)).members == []
        else:
            await filled.robots.add(name, None, ROOT)
        assert not await filled.may(subject, "pull")

    async def test_none_is_left_of_one_who_goes_meanwhile(self, houses: list[House]) -> None:
        await houses[0].users.add("stays", None, ROOT)
        for number in range(8):
            name = f"user{number}"
            await houses[0].users.add(name, None, ROOT)
            errors = await all_at_once(
                [
                    houses[0].grant(name, "pull"),
                    houses[1].users.remove(name, ROOT),
                    houses[0].grant(name, "push", pattern="**"),
                ]
            )
            assert set(errors) <= {NotFoundError}
        assert await rows(houses[0].database, tables.grants) == []

    async def test_found_by_number(self, filled: House) -> None:
        every = await filled.grants.list_page(10)
        assert [await filled.grants.get(grant.id) for grant in every] == every
        assert await filled.grants.list_page(1, every[0].id) == every[1:2]


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
    assert await house.tidying.run() == 0
    time.pass_by(31 * DAY)
    assert await house.tidying.run() == 4
    assert await rows(house.database, tables.removed_repositories) == []
    assert await rows(house.database, tables.sign_in_failures) == []
    assert await house.tidying.run() == 0
    assert not await house.lets_in("robot+cd", first)
    assert await house.lets_in("ann", PASSWORD)
    assert await house.audit.trim(40 * DAY) == 0
    assert await house.audit.trim(30 * DAY) > 10
    assert [row.kind for row in await house.books()] == ["sign-in.fail"]  # just now


def wanted(*, offline: bool = False) -> TokenRequest:
    return TokenRequest(
        Scopes({APP: frozenset({Action.PULL, Action.PUSH})}), "moorage", "docker", offline=offline
    )


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

    async def test_one_that_is_not_good_is_a_failure_in_the_books(self, filled: House) -> None:
        """A valid token is also a failure if it is for another service or its user is disabled."""
        caller = await filled.sign_in("ann", PASSWORD)
        refresh = (await filled.tokens.issue(caller, wanted(offline=True), HERE)).refresh
        assert refresh is not None
        last = (await filled.books())[-1].number
        for text, service in ((refresh[:-1] + "x", "moorage"), (refresh, "other")):
            with pytest.raises(CredentialsInvalidError):
                await filled.tokens.find_refresher(text, service, HERE)
        await filled.users.change("ann", ROOT, disabled=True)
        with pytest.raises(CredentialsInvalidError):
            await filled.tokens.find_refresher(refresh, "moorage", HERE)
        booked = [row for row in await filled.books(last) if row.kind == "sign-in.fail"]
        assert len(booked) == 3
        assert {row.address for row in booked} == {HERE.address}

    async def test_anybody_gets_what_everybody_may(self, filled: House) -> None:
        await filled.grant("anonymous", "pull")
        anybody = await filled.auth.anonymous()
        granted = await filled.tokens.issue(anybody, wanted(offline=True), HERE)
        assert granted.refresh is None
        assert granted.access.scopes.repositories == {APP: frozenset({Action.PULL})}


Change = Callable[[House], Awaitable[object]]


async def _revoke(house: House) -> None:
    retired = [key.kid for key in await house.keys.list_all() if key.state is KeyState.RETIRED]
    await house.keys.revoke(retired[0], ROOT)


async def _rotate(house: House) -> None:
    await house.keys.rotate(ROOT)


# Each change and its audit entry, in an order in which each change has an effect.
CHANGES: dict[str, tuple[Change, str, str, dict[str, Any]]] = {
    "add a user": (
        lambda h: h.users.add("cy", PASSWORD, ROOT, admin=True),
        *("user.add", "cy", {"admin": True}),
    ),
    "set a password": (
        lambda h: h.users.set_password("ann", OTHER, ROOT),
        *("user.change", "ann", {"password": True}),
    ),
    "disable": (
        lambda h: h.users.change("ann", ROOT, disabled=True),
        *("user.change", "ann", {"disabled": True}),
    ),
    "two changes": (
        lambda h: h.users.change("ann", ROOT, disabled=False, admin=True),
        *("user.change", "ann", {"disabled": False, "admin": True}),
    ),
    "add a group": (lambda h: h.groups.add("ops", ROOT), "group.add", "ops", {}),
    "add a member": (
        lambda h: h.groups.add_member("devs", "bob", ROOT),
        *("group.change", "devs", {"added": "bob"}),
    ),
    "remove a member": (
        lambda h: h.groups.remove_member("devs", "ann", ROOT),
        *("group.change", "devs", {"removed": "ann"}),
    ),
    "add a robot": (lambda h: h.robots.add("cd", 60, ROOT), "robot.add", "cd", {}),
    "rotate a robot": (
        lambda h: h.robots.rotate("ci", 60, ROOT),
        *("robot.rotate", "ci", {"overlap": 60}),
    ),
    "remove a robot": (lambda h: h.robots.remove("ci", ROOT), "robot.remove", "ci", {}),
    "add a token": (
        lambda h: h.access_tokens.add("ann", "ci", ROOT, bounds=[Bound(TEAM, PULL)]),
        *("access-token.add", "ann", {"name": "ci", "scopes": '[["team/*", ["pull"]]]'}),
    ),
    "revoke a token": (
        lambda h: h.access_tokens.revoke("ann", "laptop", ROOT),
        *("access-token.revoke", "ann", {"name": "laptop"}),
    ),
    "add a grant": (
        lambda h: h.grant("group:devs", "push"),
        *("grant.add", "group:devs", {"pattern": "team/*", "actions": "pull,push"}),
    ),
    "remove a grant": (
        lambda h: h.grants.remove(Subject.parse("ann"), TEAM, ROOT),
        *("grant.remove", "ann", {"pattern": "team/*", "actions": "pull"}),
    ),
    "rotate keys": (_rotate, "key.rotate", "", {}),
    "remove a group": (lambda h: h.groups.remove("devs", ROOT), "group.remove", "devs", {}),
    "remove a user": (lambda h: h.users.remove("ann", ROOT), "user.remove", "ann", {}),
    "revoke a key": (_revoke, "key.revoke", "", {}),
}


async def test_every_change_is_one_row_of_the_books(filled: House) -> None:
    await filled.keys.rotate(ROOT)
    for name, (change, kind, target, detail) in CHANGES.items():
        last = (await filled.books())[-1].number
        began = clock.now_us()
        await change(filled)
        new = await filled.books(last)
        assert len(new) == 1, name
        (row,) = new
        assert (row.actor, row.address, row.request_id) == ("root", "192.0.2.9", "request-1")
        assert row.kind == kind
        assert not target or row.target == target
        assert detail.items() <= json.loads(row.detail).items()
        assert began <= row.at <= clock.now_us()


async def test_the_books_know_tokens_and_failures(filled: House) -> None:
    last = (await filled.books())[-1].number
    caller = await filled.sign_in("ann", PASSWORD)
    issued = await filled.tokens.issue(caller, wanted(offline=True), HERE)
    for name in ("ann", "a password where a name belongs"):
        assert not await filled.lets_in(name, OTHER)
    token, known, unknown = await filled.books(last)
    assert (token.actor, token.kind, token.target) == (
        "ann",
        "token.issue",
        "repository:team/app:pull",
    )
    assert json.loads(token.detail) == {
        "id": issued.access.id,
        "client": "docker",
        "refresh": True,
    }
    assert (known.kind, known.target) == ("sign-in.fail", "ann")
    assert (unknown.kind, unknown.target) == ("sign-in.fail", "(unknown)")
    for row in (token, known, unknown):
        assert (row.address, row.request_id) == ("192.0.2.10", "request-2")


async def dump(database: Database) -> dict[str, str]:
    """Return the content of the database by table."""
    return {
        table.name: " ".join(
            str(bytes(value) if isinstance(value, memoryview) else value)
            for row in await database.read(lambda tx, t=table: list(tx.execute(sa.select(t))))  # type: ignore[misc]
            for value in row
        )
        for table in tables.metadata.sorted_tables
    }


async def test_no_secret_is_kept_anywhere(filled: House) -> None:
    await filled.users.set_password("bob", OTHER, ROOT)
    made = [
        (await filled.robots.add("cd", None, ROOT)).secret,
        (await filled.robots.rotate("cd", 60, ROOT)).secret,
        (await filled.access_tokens.add("ann", "ci", ROOT, lifetime=60)).secret,
    ]
    caller = await filled.sign_in("ann", made[2])
    granted = await filled.tokens.issue(caller, wanted(offline=True), HERE)
    assert granted.refresh is not None
    for name, password in (("ann", "wrong password"), ("wrong password", PASSWORD)):
        assert not await filled.lets_in(name, password)
    await filled.keys.rotate(ROOT)
    kid = (await filled.keys.list_all())[-1].kid
    private = (await filled.keyring.get_private(kid)).private_bytes_raw()
    secrets = [PASSWORD, OTHER, "wrong password", granted.access.token, private.hex()]
    secrets += [text.rpartition("_")[2] for text in [*made, granted.refresh]]
    secrets += [text.rpartition("_")[0] + "_" for text in made]
    found = await dump(filled.database)
    assert len(found["audit"]) > 100
    for table, text in found.items():
        for secret in secrets:
            assert secret not in text, table
    hashes = [row.hash for row in await rows(filled.database, tables.secrets)]
    hashes += [row.password_hash for row in await rows(filled.database, tables.users)]
    for kept in filter(None, hashes):
        assert kept not in found["audit"]


async def test_an_error_leaves_no_trace(filled: House) -> None:
    before = await dump(filled.database)
    works: list[Awaitable[object]] = [
        filled.users.add("ann", OTHER, ROOT),
        filled.groups.add("devs", ROOT),
        filled.robots.add("ci", None, ROOT),
        filled.access_tokens.add("ann", "laptop", ROOT),
        filled.grant("anonymous", "push"),
        filled.grant("nobody", "pull"),
        filled.keys.revoke("none", ROOT),
    ]
    errors = await all_at_once(works)
    assert len(errors) == len(works)
    assert all(issubclass(error, RegistryError) for error in errors)
    assert await dump(filled.database) == before
