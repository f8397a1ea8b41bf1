"""Personal access tokens, managed by their owners and by admins."""

from typing import Annotated

from msgspec import Meta

from registry import clock
from registry.auth.policy.actions import format_rights, parse_rights
from registry.auth.policy.grants import Bound
from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, DeniedError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    Actions,
    DurationText,
    Page,
    Pattern,
    RequestModel,
    ResponseModel,
    Timestamp,
    make_page,
    read_duration,
    write_timestamp,
)
from registry.operations.operation import SELF_OR_ADMIN, Operation
from registry.services.access.access_tokens import AccessToken

_SECOND = 1_000_000
_MOST_SCOPES = 100


class TokenScope(ResponseModel, frozen=True, forbid_unknown_fields=True):
    """A pattern of repositories, and the actions that a token allows there at most."""

    pattern: Pattern
    actions: Actions


class Token(ResponseModel, frozen=True):
    """A personal access token. `scopes` null: everything that its user may do."""

    name: str
    scopes: list[TokenScope] | None
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None


class TokenSecret(ResponseModel, frozen=True):
    """The secret of a token, which replaces the user's password. It is shown only once."""

    user: str
    name: str
    secret: str
    expires_at: Timestamp | None


class OwnedTokens(RequestModel, frozen=True):
    """The owner of tokens."""

    user: str


class NamedToken(RequestModel, frozen=True):
    """The owner and the name of a token."""

    user: str
    name: str


class CreateToken(RequestModel, frozen=True):
    """The token to add.

    Without `scopes` it allows everything that the user may do. Without `expires` it never expires.
    """

    user: str
    name: Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"})]
    scopes: Annotated[list[TokenScope], Meta(min_length=1, max_length=_MOST_SCOPES)] | None = None
    expires: DurationText | None = None


def _show(token: AccessToken) -> Token:
    scopes = None
    if token.bounds is not None:
        scopes = [_show_bound(bound) for bound in token.bounds]
    return Token(
        token.name,
        scopes,
        clock.rfc3339(token.created_at),
        write_timestamp(token.expires_at),
        write_timestamp(token.used_at),
    )


def _show_bound(bound: Bound) -> TokenScope:
    return TokenScope(str(bound.pattern), format_rights(bound.rights))


def _read_scope(scope: TokenScope) -> Bound:
    return Bound(RepositoryPattern.parse(scope.pattern), parse_rights(scope.actions))


async def list_tokens(context: OperationContext, request: OwnedTokens) -> Page[Token]:
    """List all tokens of a user, by name."""
    tokens = await context.access.access_tokens.list_of(request.user)
    return make_page(tokens, len(tokens), _show, lambda token: token.name)


async def create_token(context: OperationContext, request: CreateToken) -> TokenSecret:
    """Add a token. Only this response contains its secret.

    A token with scopes cannot add tokens. A token that expires cannot add one that expires later.
    """
    lifetime = read_duration(request.expires)
    if context.ends_at is not None and (
        lifetime is None or clock.now_us() + lifetime * _SECOND > context.ends_at
    ):
        raise DeniedError(
            "a token cannot create a token that expires later than itself; use an earlier `expires`"
        )
    made = await context.access.access_tokens.add(
        request.user,
        request.name,
        context.actor,
        bounds=None if request.scopes is None else [_read_scope(scope) for scope in request.scopes],
        lifetime=lifetime,
    )
    return TokenSecret(
        request.user, request.name, made.secret, write_timestamp(made.token.expires_at)
    )


async def revoke_token(context: OperationContext, request: NamedToken) -> None:
    """Revoke a token. This takes effect immediately."""
    await context.access.access_tokens.revoke(request.user, request.name, context.actor)


_TOKENS = "/users/{user}/tokens"

OPERATIONS = (
    Operation("GET", _TOKENS, list_tokens, SELF_OR_ADMIN, (NotFoundError,)),
    Operation("POST", _TOKENS, create_token, SELF_OR_ADMIN, (NotFoundError, ConflictError), 201),
    Operation("DELETE", f"{_TOKENS}/{{name}}", revoke_token, SELF_OR_ADMIN, (NotFoundError,), 204),
)
