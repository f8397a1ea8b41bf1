"""The access services of one process, for tests."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from registry.auth.audit_log import Actor
from registry.auth.authenticator import Authenticator
from registry.auth.caller import Caller
from registry.auth.client_address import ClientAddress
from registry.auth.keys.key_store import DatabaseKeyStore
from registry.auth.keys.keyring import Keyring
from registry.auth.policy.actions import (
    Action,
    GrantAction,
    Rights,
    parse_rights,
)
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.scopes import Scopes
from registry.auth.policy.subjects import Subject
from registry.auth.settings import AuthSettings
from registry.auth.tokens.external_issuers import OidcIssuer
from registry.errors import (
    CredentialsInvalidError,
)
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.services.access.access_cleanup import AccessCleanup
from registry.services.access.access_tokens import AccessTokens
from registry.services.access.audit import Audit
from registry.services.access.grants import Grants
from registry.services.access.groups import Groups
from registry.services.access.keys import Keys
from registry.services.access.robots import Robots
from registry.services.access.tokens import TokenRequest, Tokens
from registry.services.access.users import Users
from tests.support.audit_log import AuditRow, list_rows

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
        self.access_cleanup = AccessCleanup(self.database, self.keys)
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

    async def audit_log(self, after: int = 0) -> list[AuditRow]:
        return await self.database.read(lambda tx: list_rows(tx, 1000, after=after))


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


def wanted(*, offline: bool = False) -> TokenRequest:
    return TokenRequest(
        Scopes({APP: frozenset({Action.PULL, Action.PUSH})}), "moorage", "docker", offline=offline
    )


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
