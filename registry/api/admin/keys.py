"""Keys that sign tokens."""

from registry.api.admin.call import Call
from registry.api.admin.fields import Asked, Moment, Page, Shown, make_page
from registry.api.admin.operation import ADMINS, Operation
from registry.clock import rfc3339
from registry.errors import NotFoundError
from registry.services.keys import KeyState, SigningKeyRow


class Key(Shown, frozen=True):
    """A key: `active` signs, `retired` still verifies, `revoked` does neither."""

    kid: str
    state: KeyState
    created_at: Moment
    changed_at: Moment


class NewKey(Shown, frozen=True):
    """The key that signs from now on."""

    kid: str


class AllKeys(Asked, frozen=True):
    """Nothing more is asked."""


class NamedKey(Asked, frozen=True):
    """A key by its id."""

    kid: str


def _show(row: SigningKeyRow) -> Key:
    return Key(row.kid, row.state, rfc3339(row.created_at), rfc3339(row.changed_at))


async def list_keys(call: Call, asked: AllKeys) -> Page[Key]:
    """List the keys, the oldest first, all of them."""
    del asked
    keys = await call.access.keys.list_all()
    return make_page(keys, len(keys), _show, lambda key: key.kid)


async def rotate_key(call: Call, asked: AllKeys) -> NewKey:
    """Sign with a new key. Tokens of the one before stay good until they expire."""
    del asked
    return NewKey(await call.access.keys.rotate(call.actor))


async def revoke_key(call: Call, asked: NamedKey) -> None:
    """Refuse all tokens that a key has signed, at once."""
    await call.access.keys.revoke(asked.kid, call.actor)


OPERATIONS = (
    Operation("GET", "/keys", list_keys, ADMINS),
    Operation("POST", "/keys/rotate", rotate_key, ADMINS, (), 201),
    Operation("POST", "/keys/{kid}/revoke", revoke_key, ADMINS, (NotFoundError,), 204),
)
