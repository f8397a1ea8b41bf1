"""Users, robots and grants for tests, and clients that sign in as Docker does."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from registry.app import Runtime
from registry.auth.audit_log import Actor
from registry.auth.policy.actions import parse_rights
from registry.auth.policy.grants import Bound
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.subjects import Subject
from registry.services.access.access import AccessServices
from tests.support.kit import Kit

OPERATOR = Actor("operator")
SECRET = "a secret of the settings, 32 characters or more"  # noqa: S105 - of tests
AUTH = {"auth.mode": "token", "auth.secret": SECRET}
"""Settings that require all clients to sign in, for both databases."""

_FIELD = re.compile(r'([a-z_]+)="([^"]*)"')


@dataclass(frozen=True)
class Login:
    """User name and password for `docker login`."""

    name: str
    secret: str = field(repr=False)

    @property
    def basic(self) -> dict[str, str]:
        """Return the Authorization header for Basic authentication."""
        pair = base64.b64encode(f"{self.name}:{self.secret}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}


ANONYMOUS = Login("", "")


@dataclass(frozen=True)
class Accounts:
    """Factory of accounts and grants that works as the command line does."""

    access: AccessServices

    @classmethod
    def of(cls, opened: Runtime) -> "Accounts":
        return cls(opened.access)

    async def user(self, name: str, password: str = "", *, admin: bool = False) -> Login:
        secret = password or f"the password of {name}"
        await self.access.users.add(name, secret, OPERATOR, admin=admin)
        return Login(name, secret)

    async def robot(self, name: str, lifetime: float | None = None) -> Login:
        new = await self.access.robots.add(name, lifetime, OPERATOR)
        return Login(new.robot.username, new.secret)

    async def token(
        self,
        user: str,
        name: str = "laptop",
        bounds: Sequence[tuple[str, str]] | None = None,
        lifetime: float | None = None,
    ) -> Login:
        """Create a personal access token, which replaces the password.

        `bounds` holds the patterns and actions to which the token is limited.
        """
        read = [
            Bound(RepositoryPattern.parse(pattern), parse_rights(rights.split(",")))
            for pattern, rights in bounds or ()
        ]
        new = await self.access.access_tokens.add(
            user, name, OPERATOR, bounds=read or None, lifetime=lifetime
        )
        return Login(user, new.secret)

    async def grant(self, subject: str, pattern: str, rights: str) -> None:
        await self.access.grants.add(
            Subject.parse(subject),
            RepositoryPattern.parse(pattern),
            parse_rights(rights.split(",")),
            OPERATOR,
        )

    async def take(self, subject: str, pattern: str, rights: str | None = None) -> None:
        """Revoke a grant or some of its actions."""
        await self.access.grants.remove(
            Subject.parse(subject),
            RepositoryPattern.parse(pattern),
            OPERATOR,
            None if rights is None else parse_rights(rights.split(",")),
        )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def read_challenge(answer: httpx.Response) -> dict[str, str]:
    """Return the parameters of the only Bearer challenge in a response."""
    assert answer.status_code == 401, (answer.status_code, answer.text)
    [challenge] = answer.headers.get_list("www-authenticate")
    scheme, _, rest = challenge.partition(" ")
    assert scheme == "Bearer", challenge
    fields = _FIELD.findall(rest)
    assert ",".join(f'{key}="{value}"' for key, value in fields) == rest
    assert len(dict(fields)) == len(fields)
    return dict(fields)


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token without verifying it."""
    middle = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return read


def access_of(token: str) -> dict[str, set[str]]:
    """Return the actions that a token allows, by resource name."""
    return {entry["name"]: set(entry["actions"]) for entry in claims_of(token)["access"]}


async def get_token(http: httpx.AsyncClient, login: Login, *scopes: str, **more: str) -> str:
    """Return a token for `scopes` from the token endpoint."""
    params = httpx.QueryParams({"service": "moorage", **more})
    for scope in scopes:
        params = params.add("scope", scope)
    headers = login.basic if login.name else {}
    answer = await http.get("/token", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


async def answer_challenge(
    http: httpx.AsyncClient, login: Login, challenged: httpx.Response
) -> str:
    """Return the token that Docker would fetch after this challenge."""
    fields = read_challenge(challenged)
    assert fields["realm"] == f"{str(http.base_url).rstrip('/')}/token"
    scopes = fields.get("scope", "").split()
    return await get_token(http, login, *scopes, account=login.name)


def signed(http: httpx.AsyncClient, headers: dict[str, str]) -> Kit:
    """Return a client that sends `headers` with each request, over the connections of `http`."""
    client = httpx.AsyncClient(
        transport=http._transport, base_url=http.base_url, headers=headers, timeout=60
    )
    return Kit(client)


@dataclass
class Docker:
    """Client that keeps one token and requests another one after a challenge."""

    http: httpx.AsyncClient
    login: Login
    token: str = ""
    asked: int = 0

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        answer = await self.http.request(method, path, headers=headers | self._header(), **more)
        if answer.status_code != 401:
            return answer
        self.token = await answer_challenge(self.http, self.login, answer)
        self.asked += 1
        return await self.http.request(method, path, headers=headers | self._header(), **more)

    def _header(self) -> dict[str, str]:
        return bearer(self.token) if self.token else {}
