"""Keys that sign tokens."""

from registry.clock import rfc3339
from registry.errors import NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    NoInput,
    Page,
    RequestModel,
    ResponseModel,
    Timestamp,
    make_page,
)
from registry.operations.operation import ADMINS, Operation
from registry.services.access.keys import KeyState, SigningKeyRow


class SigningKey(ResponseModel, frozen=True):
    """A signing key. `active` signs tokens, `retired` only verifies, `revoked` does neither."""

    kid: str
    state: KeyState
    created_at: Timestamp
    changed_at: Timestamp


class NewSigningKey(ResponseModel, frozen=True):
    """The key that signs tokens from now on."""

    kid: str


class NamedKey(RequestModel, frozen=True):
    """The ID of a key."""

    kid: str


def _show(row: SigningKeyRow) -> SigningKey:
    return SigningKey(row.kid, row.state, rfc3339(row.created_at), rfc3339(row.changed_at))


async def list_keys(context: OperationContext, request: NoInput) -> Page[SigningKey]:
    """List all keys, the oldest first."""
    del request
    keys = await context.access.keys.list_all()
    return make_page(keys, len(keys), _show, lambda key: key.kid)


async def rotate_key(context: OperationContext, request: NoInput) -> NewSigningKey:
    """Sign tokens with a new key. Tokens of the previous key stay valid until they expire."""
    del request
    return NewSigningKey(await context.access.keys.rotate(context.actor))


async def revoke_key(context: OperationContext, request: NamedKey) -> None:
    """Revoke a key. All tokens that it signed become invalid immediately."""
    await context.access.keys.revoke(request.kid, context.actor)


OPERATIONS = (
    Operation("GET", "/keys", list_keys, ADMINS),
    Operation("POST", "/keys/rotate", rotate_key, ADMINS, (), 201),
    Operation("POST", "/keys/{kid}/revoke", revoke_key, ADMINS, (NotFoundError,), 204),
)
