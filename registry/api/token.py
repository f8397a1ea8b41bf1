"""The token endpoint (`/token`), and the public keys that verify its tokens.

Source: Distribution's specifications token and oauth; RFC 6749, RFC 8693.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from registry import clock
from registry.auth.authenticator import OIDC_SIGN_IN
from registry.auth.caller import Caller
from registry.auth.policy.actions import Action
from registry.auth.policy.scopes import Scopes
from registry.errors import (
    CredentialsInvalidError,
    GrantTypeInvalidError,
    MethodUnknownError,
    TooManyRequestsError,
    UnauthorizedError,
    UnsupportedError,
)
from registry.http.authorization import (
    Authorizer,
    Basic,
    find_limited,
    find_origin,
    read_credentials,
)
from registry.http.body import read_body
from registry.http.memory import MemoryBudget
from registry.services.access.tokens import Granted, TokenRequest, Tokens
from registry.services.mirrors.lookup import MirrorLookup

_FORM = "application/x-www-form-urlencoded"
_MAX_FORM = 256 * 1024
"""The maximum size of a form, in bytes. 500 repositories with the longest names take 190 KiB."""
_FORMS = 8 << 20
"""The memory for all large forms, in bytes. It is separate, because anybody may send a form."""
_MAX_FIELDS = 2000
_MAX_CLIENT = 80
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a type

Fields = dict[str, list[str]]


class TokenEndpoint:
    """The ASGI application of `/token`."""

    def __init__(
        self, authorizer: Authorizer, tokens: Tokens, mirrors: MirrorLookup, body_idle: float
    ) -> None:
        self._authorizer = authorizer
        self._mirrors = mirrors
        self._tokens = tokens
        self._idle = body_idle
        self._forms = MemoryBudget(_FORMS)
        self._grants: dict[str, Callable[[Request, Fields], Awaitable[Caller]]] = {
            "password": self._from_password,
            "refresh_token": self._from_refresh_token,
            _EXCHANGE: self._from_exchange,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["moorage.route"] = "/token"
        request = Request(scope, receive, send)
        if request.method not in {"GET", "POST"}:
            raise MethodUnknownError(["GET", "POST"])
        self._authorizer.limits.check_request(find_origin(request).address or None, None)
        if request.method == "POST":
            self._authorizer.sites.require_own_page(request)
        if await self._authorizer.auth.find_open() is not None:
            raise UnsupportedError("this registry needs no token; send requests without one")
        if not self._authorizer.auth.rules.local_users:
            raise UnsupportedError(
                "this registry issues no tokens (auth.local_users = false); get one from the "
                "external issuer"
            )
        response = await (self._get(request) if request.method == "GET" else self._post(request))
        response.headers["Cache-Control"] = "no-store"
        await response(scope, receive, send)

    async def _get(self, request: Request) -> Response:
        """Issue a token for Basic credentials or none; a refresh token if `offline_token=true`."""
        caller = await self._identify(request, self._from_basic, {})
        if request.url.query.count("&") >= _MAX_FIELDS:
            raise UnsupportedError(
                f"a query may have at most {_MAX_FIELDS} parameters; ask for fewer scopes"
            )
        query = request.query_params
        is_offline = query.get("offline_token") == "true"
        requested = await self._request(request, query.getlist("scope"), query, offline=is_offline)
        granted = await self._tokens.issue(caller, requested, find_origin(request))
        given = read_credentials(request)
        again = given.password if requested.offline and isinstance(given, Basic) else ""
        return self._answer(granted, refresh=again if caller.has_refresh_token else None)

    async def _post(self, request: Request) -> Response:
        """Issue a token for an OAuth 2 form with a grant type."""
        fields = await self._read_form(request)
        kind = _first(fields, "grant_type")
        if kind not in self._grants:
            raise GrantTypeInvalidError(
                f"grant_type must be password, refresh_token or {_EXCHANGE}",
                {"grant_type": kind[:80]},
            )
        caller = await self._identify(request, self._grants[kind], fields)
        single = QueryParams({key: values[0] for key, values in fields.items()})
        is_offline = _first(fields, "access_type") == "offline" and kind == "password"
        requested = await self._request(
            request, fields.get("scope", []), single, offline=is_offline
        )
        granted = await self._tokens.issue(caller, requested, find_origin(request))
        # The refresh token does not change, but some clients forget it unless it is sent again.
        again = _first(fields, "refresh_token") if kind == "refresh_token" else None
        if caller.has_refresh_token and requested.offline:
            again = _first(fields, "password")
        return self._answer(granted, scope=str(granted.access.scopes), refresh=again)

    async def _identify(
        self,
        request: Request,
        find: Callable[[Request, Fields], Awaitable[Caller]],
        fields: Fields,
    ) -> Caller:
        try:
            caller = await find(request, fields)
        except CredentialsInvalidError as error:
            challenge = f'Basic realm="{self._authorizer.auth.rules.service}"'
            raise UnauthorizedError(error.message, challenge) from error
        request.scope["moorage.principal"] = caller.principal.name
        self._authorizer.limits.check_request(None, find_limited(caller))
        return caller

    async def _from_basic(self, request: Request, _fields: Fields) -> Caller:
        given = read_credentials(request)
        if given is None:
            return await self._authorizer.auth.anonymous()
        if not isinstance(given, Basic):
            raise CredentialsInvalidError(
                "a bearer token cannot be used here; use Basic credentials"
            )
        self._authorizer.warn_if_readable(request)
        origin, auth = find_origin(request), self._authorizer.auth
        try:
            return await auth.authenticate_password(given.name, given.password, origin)
        except (CredentialsInvalidError, TooManyRequestsError):
            anonymous = await auth.anonymous()
            if not await self._asks_for_open_mirrors(request, anonymous):
                raise
            return anonymous

    async def _asks_for_open_mirrors(self, request: Request, anonymous: Caller) -> bool:
        """Return whether a request is for nothing but pulls of mirrors that everybody may pull.

        The Docker engine sends its credentials for Docker Hub to a mirror of it (moby issues 30880,
        33071), and pulls from Docker Hub itself if it gets no token.
        """
        asked = Scopes.parse(request.query_params.getlist("scope")).repositories
        mirrors = await self._mirrors.get(request.scope["moorage.began"])
        for name, actions in asked.items():
            found = mirrors.find(name) or mirrors.find_default(name)
            if actions != {Action.PULL} or found is None or not anonymous.could_pull(found.name):
                return False
        return bool(asked)

    async def _from_password(self, request: Request, fields: Fields) -> Caller:
        self._authorizer.warn_if_readable(request)
        name, password = _first(fields, "username"), _first(fields, "password")
        if "\0" in name + password:
            raise CredentialsInvalidError("wrong user name or password")
        return await self._authorizer.auth.authenticate_password(
            name, password, find_origin(request)
        )

    async def _from_refresh_token(self, request: Request, fields: Fields) -> Caller:
        return await self._tokens.find_refresher(
            _first(fields, "refresh_token"),
            self._service(_first(fields, "service")),
            find_origin(request),
        )

    async def _from_exchange(self, request: Request, fields: Fields) -> Caller:
        if _first(fields, "subject_token_type") != _ID_TOKEN:
            raise GrantTypeInvalidError(f"subject_token_type must be {_ID_TOKEN}")
        return await self._authorizer.auth.authenticate_password(
            OIDC_SIGN_IN, _first(fields, "subject_token"), find_origin(request)
        )

    async def _read_form(self, request: Request) -> Fields:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _FORM:
            raise UnsupportedError(f"the body must be a form; send it with Content-Type: {_FORM}")
        async with read_body(request, self._idle, _MAX_FORM, self._forms) as raw:
            try:
                return parse_qs(
                    raw.decode(),
                    keep_blank_values=True,
                    max_num_fields=_MAX_FIELDS,
                    errors="strict",
                )
            except ValueError as error:
                raise UnsupportedError(
                    f"the form is not valid, or has more than {_MAX_FIELDS} fields"
                ) from error

    async def _request(
        self, request: Request, scopes: list[str], query: QueryParams, *, offline: bool
    ) -> TokenRequest:
        mirrors = await self._mirrors.get(request.scope["moorage.began"])
        client = "".join(c for c in query.get("client_id", "") if c.isprintable())
        return TokenRequest(
            Scopes.parse(scopes),
            self._service(query.get("service", "")),
            client[:_MAX_CLIENT],
            offline=offline,
            find_other=mirrors.find_default_name,
        )

    def _service(self, named: str) -> str:
        return named.replace("\0", "\ufffd") or self._authorizer.auth.rules.service

    @staticmethod
    def _answer(granted: Granted, scope: str | None = None, refresh: str | None = None) -> Response:
        access = granted.access
        body: dict[str, Any] = {
            "token": access.token,
            "access_token": access.token,
            "expires_in": access.life,
            "issued_at": clock.rfc3339(access.at),
        }
        if granted.refresh or refresh:
            body["refresh_token"] = granted.refresh or refresh
        if scope is not None:
            body["scope"] = scope
        return JSONResponse(body)


def _first(fields: Fields, name: str) -> str:
    return fields.get(name, [""])[0]


class KeysEndpoint:
    """The public keys of this registry for other servers (RFC 7517)."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._auth = authorizer.auth

    async def get_keys(self, request: Request) -> Response:
        del request
        policy = await self._auth.policies.get()
        return JSONResponse(
            {"keys": self._auth.tokens.list_public(policy)},
            headers={"Cache-Control": "max-age=60"},
        )
