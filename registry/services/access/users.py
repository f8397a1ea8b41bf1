"""User accounts with names and passwords."""

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.credentials.passwords import Passwords, require_usable
from registry.auth.keys.keyring import Keyring
from registry.auth.policy.principals import OPERATOR
from registry.auth.policy.subjects import Subject, SubjectKind, parse_new_user_name
from registry.errors import (
    ConflictError,
    InputInvalidError,
    NotFoundError,
)
from registry.metadata.access import grants, users
from registry.metadata.access.users import UserRow
from registry.metadata.content import repositories
from registry.metadata.content.repositories import NameRange
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction

__all__ = ["Imported", "UserRow", "Users", "find_user_or_raise"]

_MOST_REFUSED = 1000
"""Maximum number of rejected lines in an error message."""

# A bcrypt cost above 15 would block a thread for seconds per attempt.
_HTPASSWD = re.compile(r"(?P<name>[^:]+):(?P<hash>\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53})")


def find_user_or_raise(tx: Transaction, name: str, *, lock: bool = False) -> UserRow:
    found = users.find(tx, name, lock=lock)
    if found is None:
        raise NotFoundError(f"no user {name!r}")
    return found


class Imported(Struct, frozen=True):
    """Result of an htpasswd import.

    It contains the added names, the names that already existed, and the reasons for skipped lines.
    """

    added: list[str]
    existing: list[str]
    invalid: list[str]


class Users:
    """Management of users."""

    def __init__(self, database: Database, keyring: Keyring, passwords: Passwords) -> None:
        self._db = database
        self._keyring = keyring
        self._passwords = passwords

    async def is_any(self) -> bool:
        return await self._db.read(users.is_any)

    async def list_page(self, n: int, last: str = "") -> list[UserRow]:
        """Return at most `n` users after `last`, ordered by name."""
        return await self._db.read(lambda tx: users.list_page(tx, n, last))

    async def get(self, name: str) -> UserRow:
        """Return the user. Raises NotFoundError."""
        return await self._db.read(lambda tx: find_user_or_raise(tx, name))

    async def add(
        self, name: str, password: str | None, actor: Actor, *, admin: bool = False
    ) -> UserRow:
        """Add a user. Without a password, the user can only use tokens.

        Raises AccountNameInvalidError, PasswordInvalidError, ConflictError.
        """
        parse_new_user_name(name)
        if password is not None:
            require_usable(password)
        await self._keyring.prepare()  # the first user makes sign-ins possible
        stored = None if password is None else await self._passwords.hash(password)

        def work(tx: Transaction) -> UserRow:
            if not _insert(tx, name, stored, admin=admin):
                raise ConflictError(f"the user {name!r} already exists")
            record(tx, actor, Event.USER_CREATE, name, admin=admin)
            return find_user_or_raise(tx, name)

        return await self._db.write(work, actor=actor.name)

    async def add_first_admin(self, name: str, password: str) -> bool:
        """Add an admin if there are no users. Return whether one was added.

        Raises AccountNameInvalidError, PasswordInvalidError.
        """
        if await self.is_any():
            return False
        parse_new_user_name(name)
        require_usable(password)
        await self._keyring.prepare()
        stored = await self._passwords.hash(password)

        def work(tx: Transaction) -> bool:
            tx.lock_name("admins")  # replicas may start at the same time
            if users.is_any(tx) or not _insert(tx, name, stored, admin=True):
                return False
            record(tx, Actor(OPERATOR.name), Event.USER_CREATE, name, admin=True, first=True)
            return True

        return await self._db.write(work, actor=OPERATOR.name)

    async def import_htpasswd(
        self, lines: Iterable[str], actor: Actor, *, skip_invalid: bool = False
    ) -> Imported:
        """Add the users of an htpasswd file (`htpasswd -B`), all or none.

        Existing users are unchanged. `skip_invalid` leaves out lines that cannot be imported;
        without it, they raise InputInvalidError, which lists them.
        """
        found: list[tuple[str, str]] = []
        refused: list[str] = []
        for number, line in enumerate(lines, 1):
            try:
                found.extend(_read_entry(line))
            except InputInvalidError as error:
                refused.append(f"line {number}: {error.message}")
        if refused and not skip_invalid:
            raise InputInvalidError(_tell_refused(refused))
        await self._keyring.prepare()

        def work(tx: Transaction) -> Imported:
            imported = Imported([], [], refused)
            for name, stored in found:
                added = _insert(tx, name, stored, admin=False)
                (imported.added if added else imported.existing).append(name)
                if added:
                    record(tx, actor, Event.USER_CREATE, name, admin=False, imported=True)
            return imported

        return await self._db.write(work, actor=actor.name)

    async def set_password(self, name: str, password: str, actor: Actor) -> None:
        """Set a new password. Tokens obtained by signing in with the old one become invalid.

        Raises NotFoundError, PasswordInvalidError.
        """
        require_usable(password)
        hashed = await self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            users.set_password(tx, find_user_or_raise(tx, name, lock=True), hashed)
            record(tx, actor, Event.USER_UPDATE, name, password=True)

        await self._db.write(work, actor=actor.name)

    async def change(
        self, name: str, actor: Actor, *, disabled: bool | None = None, admin: bool | None = None
    ) -> UserRow:
        """Enable or disable a user, or grant or revoke the admin role.

        Raises NotFoundError, and ConflictError if the change would leave no admin.
        """

        def work(tx: Transaction) -> UserRow:
            user = find_user_or_raise(tx, name, lock=True)
            if disabled or admin is False:
                _require_other_admin(tx, user)
            changed: dict[str, Any] = {}
            if disabled is not None and disabled != user.disabled:
                users.set_disabled(tx, user, disabled=disabled)
                changed["disabled"] = disabled
            if admin is not None and admin != user.admin:
                users.set_admin(tx, user, admin=admin)
                changed["admin"] = admin
            if changed:
                record(tx, actor, Event.USER_UPDATE, name, **changed)
            return find_user_or_raise(tx, name)

        return await self._db.write(work, actor=actor.name)

    async def remove(self, name: str, actor: Actor) -> None:
        """Remove a user with their tokens and grants.

        Raises NotFoundError, and ConflictError for the last user or the last admin. Without users,
        the registry would be open to everybody.
        """

        def work(tx: Transaction) -> None:
            user = find_user_or_raise(tx, name, lock=True)
            if not users.is_other(tx, user):
                raise ConflictError(
                    f"{name} is the last user, and without users anyone could push; add "
                    "another user first"
                )
            _require_other_admin(tx, user)
            grants.delete_all_of(tx, str(Subject(SubjectKind.USER, name)))
            users.delete(tx, user)
            record(tx, actor, Event.USER_DELETE, name)

        await self._db.write(work, actor=actor.name)


def _insert(tx: Transaction, name: str, stored: str | None, *, admin: bool) -> bool:
    """Insert a user without inheriting grants of a previous user of that name.

    Returns False if the user exists. Repositories that already exist below the name belong to
    somebody else, so the user does not own that namespace, even where users own the namespace of
    their name.
    """
    namespace = not repositories.list_names(tx, 1, "", [NameRange(f"{name}/")])
    if not users.insert(tx, name, stored, admin=admin, namespace=namespace):
        return False
    grants.delete_all_of(tx, str(Subject(SubjectKind.USER, name)))
    return True


def _tell_refused(refused: list[str]) -> str:
    heading = f"{len(refused)} of the lines cannot be imported; --skip leaves them out:"
    more = len(refused) - _MOST_REFUSED
    return "\n  ".join([heading, *refused[:_MOST_REFUSED], *([f"and {more} more"] * (more > 0))])


def _require_other_admin(tx: Transaction, user: UserRow) -> None:
    """Raise ConflictError if no other user could administer the registry remotely."""
    if user.admin and not user.disabled and not users.is_other_admin(tx, user):
        raise ConflictError(
            f"{user.name} is the last admin; make another user an admin first: moorage user "
            "change NAME --admin"
        )


def _read_entry(line: str) -> list[tuple[str, str]]:
    """Return the user on a line as a list of at most one item. Raises InputInvalidError."""
    text = line.strip()
    if not text or text.startswith("#"):
        return []
    match = _HTPASSWD.fullmatch(text)
    if match is None:
        # Do not repeat the line: it may contain a weak hash.
        raise InputInvalidError(
            "expected NAME:BCRYPT with a cost of 4 to 15; create it with: htpasswd -B"
        )
    return [(parse_new_user_name(match["name"]), match["hash"])]
