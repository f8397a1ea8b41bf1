"""Authentication and authorization of requests, before any data is read.

Source: RFC 9110 section 11, RFC 6750 section 3, Distribution's token specification.
"""

import base64
import logging
import re
import time

from msgspec import Struct
from starlette.requests import Request

from registry import logs
from registry.auth.authenticator import Authenticator
from registry.auth.caller import Caller, needed_actions
from registry.auth.client_address import ClientAddress
from registry.auth.policy.actions import Action
from registry.auth.policy.principals import ANONYMOUS
from registry.auth.settings import TLS_REMEDY
from registry.errors import (
    CredentialsInvalidError,
    DeniedError,
    TokenInvalidError,
    UnauthorizedError,
)
from registry.http.errors import write_message
from registry.http.rate_limits import Limits
from registry.http.settings import ApiSettings
from registry.http.sites import Sites
from registry.oci.names import RepositoryName
from registry.units import is_loopback

logger = logging.getLogger(__name__)

_WARN_EVERY = 3600.0
_SAFE = {"GET", "HEAD"}

# Not only binascii.Error: b64decode raises a plain ValueError for text that is not ASCII.
_UNREADABLE = ValueError

_NOT_QUOTABLE = re.compile(r"[^ !#-\[\]-~]")
"""Characters that `error_description` must not contain. Source: RFC 6750, section 3."""


class Basic(Struct, frozen=True):
    """The user name and the password of a request."""

    name: str
    password: str


class Token(Struct, frozen=True):
    """The bearer token of a request."""

    text: str


def read_credentials(request: Request) -> Basic | Token | None:
    """Return the credentials of a request; None without any, or with an empty name and password.

    Raises CredentialsInvalidError.
    """
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, value = given[0].partition(" ")
    if len(given) == 1 and scheme.lower() == "bearer":
        return Token(value.strip())
    if len(given) == 1 and scheme.lower() == "basic":
        try:
            text = base64.b64decode(value.strip(), validate=True).decode()
        except _UNREADABLE:
            text = ""
        name, colon, password = text.partition(":")
        if colon and "\0" not in text:
            return Basic(name, password) if name or password else None
    raise CredentialsInvalidError(
        "the Authorization header is not valid; send Basic or Bearer credentials, once"
    )


def find_origin(request: Request) -> ClientAddress:
    """Return the client address and the request ID."""
    return ClientAddress(request.client.host if request.client else "", logs.request_id.get())


def find_limited(caller: Caller) -> str | None:
    """Return the principal that rate limits count for; None for anonymous callers."""
    return None if caller.principal == ANONYMOUS else caller.principal.name


def format_scope(action: Action, name: RepositoryName | None) -> str:
    """Return the scope that a token needs for `action`; empty if any token is enough."""
    if action is Action.CATALOG:
        return "registry:catalog:*"
    if name is None:
        return ""
    return f"repository:{name}:{','.join(sorted(needed_actions(action)))}"


def _write_requirement(action: Action, name: RepositoryName | None) -> str:
    """Return what is missing and who can grant it.

    It does not reveal whether the repository exists.
    """
    if name is None:
        return f"requires {action.value}; ask an admin of this registry"
    return (
        f"requires {action.value} on {name}; ask an admin of this registry or of {name} to grant it"
    )


class Authorizer:
    """Authenticates and authorizes requests."""

    def __init__(self, auth: Authenticator, limits: Limits, settings: ApiSettings) -> None:
        self.auth = auth
        self.limits = limits
        self.sites = Sites(settings.http)
        self._realm = settings.auth.realm
        self._service = settings.auth.challenge_service
        self._warned = float("-inf")

    async def admit(
        self,
        request: Request,
        action: Action,
        name: RepositoryName | None,
        *others: RepositoryName | None,
    ) -> Caller:
        """Return the caller, who may do `action` in the repository, or in one of `others`.

        Raises UnauthorizedError with a challenge if the caller needs other credentials, DeniedError
        if other credentials would not help, and TooManyRequestsError.
        """
        origin = find_origin(request)
        self.limits.check_request(origin.address or None, None)
        if request.method not in _SAFE:
            self.sites.require_own_page(request)
        caller = await self.auth.find_open(request.scope["moorage.began"])
        if caller is not None:
            self.sites.require_known_host(request)
        else:
            caller = await self._identify(request, action, (name, *others), origin)
        self.limits.check_request(None, find_limited(caller))
        return caller

    async def _identify(
        self,
        request: Request,
        action: Action,
        names: tuple[RepositoryName | None, ...],
        origin: ClientAddress,
    ) -> Caller:
        name = names[0]
        scope = format_scope(action, name)
        since = request.scope["moorage.began"]
        try:
            given = read_credentials(request)
            if isinstance(given, Basic):
                self.warn_if_readable(request)
                caller = await self.auth.authenticate_password(
                    given.name, given.password, origin, since
                )
                if any(caller.may(action, each) for each in names):
                    return caller
                raise DeniedError(_write_requirement(action, name), {"action": action.value})
            if isinstance(given, Token):
                caller = await self.auth.authenticate_token(given.text, since)
                if any(caller.may(action, each) for each in names):
                    return caller
                need = (
                    ""
                    if name is None or caller.could(action, name)
                    else _write_requirement(action, name)
                )
                raise self.demand(request, caller, [scope], need)
        except CredentialsInvalidError as error:
            raise self._unauthorized(request, error.message, scope) from error
        except TokenInvalidError as error:
            raise self._unauthorized(request, error.message, scope, "invalid_token") from error
        self.warn_if_readable(request)
        raise self._unauthorized(request, "", scope)

    def demand(
        self, request: Request, caller: Caller, scopes: list[str], need: str = ""
    ) -> UnauthorizedError:
        """Return the error that requires a token with these scopes.

        `need` is what is missing if no token would help. A client without credentials has an
        anonymous token. It gets the same message as without a token.
        """
        scope = " ".join(scopes)
        if caller.principal == ANONYMOUS:
            return self._unauthorized(request, "", scope, "insufficient_scope")
        message = need or f"the token lacks the scope {scope}"
        return self._unauthorized(request, message, scope, "insufficient_scope", "DENIED")

    def _unauthorized(
        self,
        request: Request,
        message: str,
        scope: str,
        error: str = "",
        described_as: str = "UNAUTHORIZED",
    ) -> UnauthorizedError:
        """Return an error with a challenge.

        If it has an `error` of RFC 6750, Docker, podman and skopeo show its description and ignore
        the body. They treat `insufficient_scope` as the code DENIED.
        """
        realm = self._realm or f"{request.scope['moorage.base']}/token"
        fields = {"realm": realm, "service": self._service, "scope": scope}
        if error:
            text = write_message(described_as, message)
            fields |= {"error": error, "error_description": _NOT_QUOTABLE.sub("?", text)}
        given = ",".join(f'{key}="{value}"' for key, value in fields.items() if value)
        return UnauthorizedError(message, f"Bearer {given}", {"scope": scope} if scope else None)

    def warn_if_readable(self, request: Request) -> None:
        """Log a warning, at most once an hour, if passwords are sent without encryption."""
        readable = str(request.scope["moorage.base"]).startswith("http:")
        client = request.client.host if request.client else "localhost"
        if readable and not is_loopback(client) and time.monotonic() > self._warned + _WARN_EVERY:
            self._warned = time.monotonic()
            logger.warning(
                "passwords are sent without TLS, so others on the network can read them: %s",
                TLS_REMEDY,
            )
