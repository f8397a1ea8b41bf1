"""Authorization at an upstream: Basic credentials, and tokens of token servers.

Sources: RFC 9110 and RFC 7617; Distribution's token and OAuth 2 specifications.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlencode

from registry.client.challenges import Challenge, parse_challenges
from registry.client.credentials import CredentialCache, Credentials
from registry.client.refusals import read_refusal
from registry.client.response import Response
from registry.client.targets import Target
from registry.client.transport import Transport
from registry.errors import (
    UpstreamCredentialsError,
    UpstreamDeniedError,
    UpstreamProtocolError,
    UpstreamUnavailableError,
)

_TOKEN_ORIGINS = {
    "https://registry-1.docker.io": ("https://auth.docker.io",),
    "https://nvcr.io": ("https://authn.nvidia.com",),
    "https://registry.gitlab.com": ("https://gitlab.com",),
}
"""Origins of the token servers of registries that do not issue their tokens themselves."""

_LIFE_S = 60
"""Seconds that a token is valid unless the token server says otherwise, by the specification."""

_MARGIN_S = 10.0
_LONGEST_LIFE_S = 86_400
_MOST_BYTES = 1 << 20
_MOST_TOKENS = 1000
_OK, _UNAUTHORIZED = 200, 401


class _Grant(NamedTuple):
    """The parameters of a token, and its token server."""

    realm: Target
    service: str
    scope: str


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    renew_at: float


class Authorization:
    """Values of the Authorization header for the upstream at `target`.

    Credentials are sent only to the upstream's own origin and to `token_origins`. A token is kept
    until it expires, and requested by one request at a time.
    """

    def __init__(
        self,
        transport: Transport,
        target: Target,
        credentials: CredentialCache | None,
        token_origins: Collection[str] = (),
    ) -> None:
        self._transport = transport
        self._target = target
        self._credentials = credentials
        named = (Target.parse(each).origin for each in token_origins)
        self._trusted = {target.origin, *named, *_TOKEN_ORIGINS.get(target.origin, ())}
        self._uses_basic = False
        self._grants: OrderedDict[str, _Grant] = OrderedDict()
        self._tokens: OrderedDict[_Grant, _Token] = OrderedDict()
        self._requests: dict[_Grant, asyncio.Task[_Token]] = {}

    async def find(self, scope: str) -> str:
        """Return the header that earlier challenges for the scope asked for, or nothing."""
        if self._uses_basic and self._credentials:
            return (await self._credentials.get()).basic
        grant = self._grants.get(scope)
        return await self._get_token(grant) if grant else ""

    async def answer(self, scope: str, header: str, response: Response) -> str:
        """Return the header for another attempt after `response` refused `header`.

        Raises UpstreamDeniedError if there is none, and UpstreamCredentialsError if the upstream
        refuses the password.
        """
        if header.startswith("Bearer "):
            # An expired token can have another realm in its challenge (nvcr.io does this).
            grant = self._grants.pop(scope, None)
            if grant is not None:
                self._tokens.pop(grant, None)
            return ""
        if header:
            return await self._replace_basic(header)
        return await self._meet(scope, response)

    def close(self) -> None:
        """Stop running requests for tokens."""
        for task in self._requests.values():
            task.cancel()

    async def _meet(self, scope: str, response: Response) -> str:
        where = response.where
        try:
            challenges = parse_challenges(response.headers.get("WWW-Authenticate"))
        except ValueError:
            raise UpstreamProtocolError(f"{where} sent a challenge that cannot be parsed") from None
        by_scheme = {each.scheme: each for each in reversed(challenges)}
        if "bearer" in by_scheme:
            grant = self._read_grant(by_scheme["bearer"], scope)
            header = await self._get_token(grant)
            self._grants[scope] = grant
            _limit(self._grants)
            return header
        if "basic" not in by_scheme:
            raise UpstreamDeniedError(
                f"{where} requires a type of authentication that is not supported"
            )
        if self._credentials is None:
            raise UpstreamDeniedError(f"{where} requires a user name and a password")
        header = (await self._credentials.get()).basic
        self._uses_basic = True
        return header

    async def _replace_basic(self, header: str) -> str:
        if self._credentials is not None:
            current = await self._credentials.get()
            if current.basic != header:
                return current.basic
            other = await self._credentials.replace(current)
            if other is not None:
                return other.basic
        raise _refused(self._target)

    def _read_grant(self, challenge: Challenge, scope: str) -> _Grant:
        asked = challenge.parameters
        realm = Target.parse(asked.get("realm", ""))
        if realm.origin not in self._trusted:
            if self._credentials is not None:
                raise UpstreamDeniedError(
                    f"{self._target.origin} has its tokens issued by {realm.origin}, which gets no "
                    "credentials; if that is its token server, add it to the token origins"
                )
            if realm.scheme != "https" and self._target.scheme == "https":
                raise UpstreamProtocolError(
                    f"{self._target.origin} names a token server without TLS"
                )
        return _Grant(realm, asked.get("service", ""), asked.get("scope", "") or scope)

    async def _get_token(self, grant: _Grant) -> str:
        token = self._tokens.get(grant)
        if token is None or monotonic() >= token.renew_at:
            token = await self._share_request(grant)
        return token.header

    async def _share_request(self, grant: _Grant) -> _Token:
        task = self._requests.get(grant)
        if task is None:
            task = asyncio.create_task(self._request_token(grant))
            self._requests[grant] = task
            task.add_done_callback(lambda done: self._finish(grant, done))
        # Other callers need the token if this one is cancelled.
        return await asyncio.shield(task)

    def _finish(self, grant: _Grant, task: asyncio.Task[_Token]) -> None:
        self._requests.pop(grant, None)
        if not task.cancelled() and task.exception() is None:
            self._tokens[grant] = task.result()
            _limit(self._tokens)

    async def _request_token(self, grant: _Grant) -> _Token:
        deadline = self._transport.deadlines.headers_s
        try:
            async with asyncio.timeout(deadline):
                credentials = await self._credentials.get() if self._credentials else None
                try:
                    return await self._ask(grant, credentials)
                except UpstreamCredentialsError:
                    if self._credentials is None or credentials is None:
                        raise
                    other = await self._credentials.replace(credentials)
                    if other is None:
                        raise
                    return await self._ask(grant, other)
        except TimeoutError:
            raise UpstreamUnavailableError(
                f"the token server {grant.realm.origin} did not respond within {deadline:g} s"
            ) from None

    async def _ask(self, grant: _Grant, credentials: Credentials | None) -> _Token:
        began = monotonic()
        response = await self._send(grant, credentials)
        async with response:
            if response.status == _UNAUTHORIZED and credentials is not None:
                raise _refused(grant.realm)
            if response.status != _OK:
                raise await read_refusal(response)
            raw = await response.read_all(_MOST_BYTES)
        try:
            made = json.loads(raw)
            token = made.get("token") or made.get("access_token")
            life = made.get("expires_in")
        except (ValueError, AttributeError, RecursionError):
            raise UpstreamProtocolError(f"{response.where} returned no valid token") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise UpstreamProtocolError(f"{response.where} returned no valid token")
        if not isinstance(life, int | float) or not 0 < life <= _LONGEST_LIFE_S:
            life = _LIFE_S
        return _Token(f"Bearer {token}", began + life - min(_MARGIN_S, life / 10))

    async def _send(self, grant: _Grant, credentials: Credentials | None) -> Response:
        realm = grant.realm
        fields = {"service": grant.service, "scope": grant.scope}
        fields = {name: value for name, value in fields.items() if value}
        if credentials is not None and credentials.is_identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.password,
                "client_id": "moorage",
                **fields,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return await self._transport.open("POST", realm, headers, urlencode(form).encode())
        joint = "&" if "?" in realm.path else "?"
        query = realm.with_path(f"{realm.path}{joint}{urlencode(fields)}" if fields else realm.path)
        headers = {} if credentials is None else {"Authorization": credentials.basic}
        return await self._transport.open("GET", query, headers)


def _refused(target: Target) -> UpstreamCredentialsError:
    return UpstreamCredentialsError(
        f"{target.origin} refuses the user name or the password; correct the credentials"
    )


def _limit(entries: OrderedDict[_Grant, _Token] | OrderedDict[str, _Grant]) -> None:
    while len(entries) > _MOST_TOKENS:
        entries.popitem(last=False)
