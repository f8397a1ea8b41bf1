"""Keys that sign tokens."""

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import Page, RequestModel, ResponseModel, Timestamp, make_page
from registry.api.admin.operation import ADMINS, Operation
from registry.clock import rfc3339
from registry.errors import NotFoundError
from registry.services.access.keys import KeyState, SigningKeyRow


class Key(ResponseModel, frozen=True):
    """A key. `active` signs tokens, `retired` only verifies them, `revoked` does neither."""

    kid: str
    state: KeyState
    created_at: Timestamp
    changed_at: Timestamp


class NewKey(ResponseModel, frozen=True):
    """The key that signs tokens from now on."""

    kid: str


class AllKeys(RequestModel, frozen=True):
    """No input."""


class NamedKey(RequestModel, frozen=True):
    """The ID of a key."""

    kid: str


def _show(row: SigningKeyRow) -> Key:
    return Key(row.kid, row.state, rfc3339(row.created_at), rfc3339(row.changed_at))


async def list_keys(call: OperationContext, asked: AllKeys) -> Page[Key]:
    """List all keys, the oldest first."""
    del asked
    keys = await call.access.keys.list_all()
    return make_page(keys, len(keys), _show, lambda key: key.kid)


async def rotate_key(call: OperationContext, asked: AllKeys) -> NewKey:
    """Sign tokens with a new key. Tokens of the previous key stay valid until they expire."""
    del asked
    return NewKey(await call.access.keys.rotate(call.actor))


async def revoke_key(call: OperationContext, asked: NamedKey) -> None:
    """Revoke a key. All tokens that it signed become invalid immediately."""
    await call.access.keys.revoke(asked.kid, call.actor)


OPERATIONS = (
    Operation("GET", "/keys", list_keys, ADMINS),
    Operation("POST", "/keys/rotate", rotate_key, ADMINS, (), 201),
    Operation("POST", "/keys/{kid}/revoke", revoke_key, ADMINS, (NotFoundError,), 204),
)
