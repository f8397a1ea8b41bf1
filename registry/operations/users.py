"""Users and their passwords."""

from registry.clock import rfc3339
from registry.errors import ConflictError, CredentialsInvalidError, DeniedError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    Page,
    PageRequest,
    Password,
    RequestModel,
    ResponseModel,
    Text,
    Timestamp,
    UserName,
    clamp,
    make_page,
)
from registry.operations.operation import ADMINS, SELF_OR_ADMIN, Operation
from registry.services.access.users import UserRow


class User(ResponseModel, frozen=True):
    """A user. A disabled user cannot sign in."""

    name: str
    admin: bool
    disabled: bool
    created_at: Timestamp


class NamedUser(RequestModel, frozen=True):
    """The name of a user."""

    name: str


class CreateUser(RequestModel, frozen=True):
    """The user to add. A user without a password can sign in only with tokens."""

    name: UserName
    password: Password | None = None
    admin: bool = False


class UpdateUser(RequestModel, frozen=True):
    """The changes. Fields that are left out keep their values."""

    name: str
    admin: bool | None = None
    disabled: bool | None = None


class SetPassword(RequestModel, frozen=True):
    """A new password. `current` is required if callers set their own password."""

    user: str
    password: Password
    current: Text = ""


class ImportUsers(RequestModel, frozen=True):
    """The text of an htpasswd file with bcrypt hashes (`htpasswd -B`).

    `skip_invalid` leaves out the lines that cannot be imported.
    """

    htpasswd: str
    skip_invalid: bool = False


class ImportedUsers(ResponseModel, frozen=True):
    """The result of an import.

    `added` has the names of the added users. `existing` has the names of users that existed already
    and are unchanged. `invalid` says for each line that was left out what is wrong with it.
    """

    added: list[str]
    existing: list[str]
    invalid: list[str]


def _show(row: UserRow) -> User:
    return User(row.name, row.admin, row.disabled, rfc3339(row.created_at))


async def list_users(context: OperationContext, request: PageRequest) -> Page[User]:
    """List users, by name."""
    n = clamp(request.n)
    return make_page(
        await context.access.users.list_page(n + 1, request.last), n, _show, lambda row: row.name
    )


async def create_user(context: OperationContext, request: CreateUser) -> User:
    """Add a user."""
    return _show(
        await context.access.users.add(
            request.name, request.password, context.actor, admin=request.admin
        )
    )


async def get_user(context: OperationContext, request: NamedUser) -> User:
    """Return a user."""
    return _show(await context.access.users.get(request.name))


async def update_user(context: OperationContext, request: UpdateUser) -> User:
    """Change whether a user is an admin, or disable or enable a user.

    Disabling a user immediately invalidates everything that the user is signed in with. The last
    admin must remain an admin.
    """
    return _show(
        await context.access.users.change(
            request.name, context.actor, disabled=request.disabled, admin=request.admin
        )
    )


async def delete_user(context: OperationContext, request: NamedUser) -> None:
    """Delete a user with their tokens and grants.

    The last user and the last admin cannot be deleted.
    """
    await context.access.users.remove(request.name, context.actor)


async def set_password(context: OperationContext, request: SetPassword) -> None:
    """Set a user's password. This invalidates all tokens obtained with the old password.

    Callers who set their own password, including admins, must provide the current one. A wrong
    current password counts as a failed sign-in.
    """
    if context.is_user(request.user) and not await _is_current(context, request):
        raise DeniedError("the current password is wrong; send it as `current`")
    await context.access.users.set_password(request.user, request.password, context.actor)


async def _is_current(context: OperationContext, request: SetPassword) -> bool:
    try:
        caller = await context.access.authenticator.authenticate_password(
            request.user, request.current, context.actor.origin
        )
    except CredentialsInvalidError:
        return False
    # A token can be used as a password, but it must not be enough to lock its owner out.
    return caller.principal.credential.startswith("user:") and not caller.has_refresh_token


async def import_users(context: OperationContext, request: ImportUsers) -> ImportedUsers:
    """Add the users of an htpasswd file, all or none.

    When a user signs in, the registry replaces the bcrypt hash with an argon2id hash.
    """
    imported = await context.access.users.import_htpasswd(
        request.htpasswd.splitlines(), context.actor, skip_invalid=request.skip_invalid
    )
    return ImportedUsers(imported.added, imported.existing, imported.invalid)


OPERATIONS = (
    Operation("GET", "/users", list_users, ADMINS),
    Operation("POST", "/users", create_user, ADMINS, (ConflictError,), 201),
    Operation("GET", "/users/{name}", get_user, ADMINS, (NotFoundError,)),
    Operation("PATCH", "/users/{name}", update_user, ADMINS, (NotFoundError, ConflictError)),
    Operation("DELETE", "/users/{name}", delete_user, ADMINS, (NotFoundError, ConflictError), 204),
    Operation("PUT", "/users/{user}/password", set_password, SELF_OR_ADMIN, (NotFoundError,), 204),
    # Not below /users: the path would collide with the name of a user.
    Operation("POST", "/htpasswd", import_users, ADMINS),
)
