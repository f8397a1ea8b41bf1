"""Users and their passwords."""

from registry.api.admin.call import Call
from registry.api.admin.fields import (
    Asked,
    Moment,
    Page,
    PageAsked,
    Password,
    Shown,
    Text,
    UserName,
    clamp,
    make_page,
)
from registry.api.admin.operation import ADMINS, HERSELF, Operation
from registry.clock import rfc3339
from registry.errors import ConflictError, CredentialsInvalidError, DeniedError, NotFoundError
from registry.services.users import UserRow


class User(Shown, frozen=True):
    """A user. Who is disabled cannot sign in."""

    name: str
    admin: bool
    disabled: bool
    created_at: Moment


class NamedUser(Asked, frozen=True):
    """A user by name."""

    name: str


class AddUser(Asked, frozen=True):
    """A user to add. Without a password she has no other way in than tokens."""

    name: UserName
    password: Password | None = None
    admin: bool = False


class ChangeUser(Asked, frozen=True):
    """What is to change; what is left out stays."""

    name: str
    admin: bool | None = None
    disabled: bool | None = None


class SetPassword(Asked, frozen=True):
    """A new password. `current` is asked of whoever sets her own."""

    user: str
    password: Password
    current: Text = ""


class ImportUsers(Asked, frozen=True):
    """The text of an htpasswd file with bcrypt hashes (`htpasswd -B`). `skip`: leave out the lines
    that cannot be imported.
    """

    htpasswd: str
    skip: bool = False


class ImportedUsers(Shown, frozen=True):
    """Names that were added, names that were there already and stay as they are, and what is wrong
    with the lines that were left out.
    """

    added: list[str]
    skipped: list[str]
    refused: list[str]


def _show(row: UserRow) -> User:
    return User(row.name, row.admin, row.disabled, rfc3339(row.created_at))


async def list_users(call: Call, asked: PageAsked) -> Page[User]:
    """List users, by name."""
    n = clamp(asked.n)
    return make_page(
        await call.access.users.list_page(n + 1, asked.last), n, _show, lambda row: row.name
    )


async def add_user(call: Call, asked: AddUser) -> User:
    """Add a user."""
    return _show(
        await call.access.users.add(asked.name, asked.password, call.actor, admin=asked.admin)
    )


async def get_user(call: Call, asked: NamedUser) -> User:
    """Look at a user."""
    return _show(await call.access.users.get(asked.name))


async def change_user(call: Call, asked: ChangeUser) -> User:
    """Make a user an admin or not; shut her out, or let her in again.

    Being shut out ends what she is signed in with, at once. The last admin stays one.
    """
    return _show(
        await call.access.users.change(
            asked.name, call.actor, disabled=asked.disabled, admin=asked.admin
        )
    )


async def remove_user(call: Call, asked: NamedUser) -> None:
    """Remove a user with her tokens and grants. The last user stays, and the last admin."""
    await call.access.users.remove(asked.name, call.actor)


async def set_password(call: Call, asked: SetPassword) -> None:
    """Set a user's password, which ends what she is signed in with by the old one.

    Whoever sets her own, admins too, gives the current one; its failures are counted as those of
    signing in are.
    """
    if call.is_user(asked.user) and not await _is_current(call, asked):
        raise DeniedError("the current password is wrong")
    await call.access.users.set_password(asked.user, asked.password, call.actor)


async def _is_current(call: Call, asked: SetPassword) -> bool:
    try:
        caller = await call.access.authenticator.from_password(
            asked.user, asked.current, call.actor.origin
        )
    except CredentialsInvalidError:
        return False
    # A token signs in like a password: it must not be enough to lock its owner out.
    return caller.principal.credential.startswith("user:") and not caller.has_refresh_token


async def import_users(call: Call, asked: ImportUsers) -> ImportedUsers:
    """Add the users of an htpasswd file, all or none. Hashes are renewed as they sign in."""
    imported = await call.access.users.import_htpasswd(
        asked.htpasswd.splitlines(), call.actor, skip=asked.skip
    )
    return ImportedUsers(imported.added, imported.skipped, imported.refused)


OPERATIONS = (
    Operation("GET", "/users", list_users, ADMINS),
    Operation("POST", "/users", add_user, ADMINS, (ConflictError,), 201),
    Operation("GET", "/users/{name}", get_user, ADMINS, (NotFoundError,)),
    Operation("PATCH", "/users/{name}", change_user, ADMINS, (NotFoundError, ConflictError)),
    Operation("DELETE", "/users/{name}", remove_user, ADMINS, (NotFoundError, ConflictError), 204),
    Operation("PUT", "/users/{user}/password", set_password, HERSELF, (NotFoundError,), 204),
    # Not below /users, where it would take a name away.
    Operation("POST", "/htpasswd", import_users, ADMINS),
)
