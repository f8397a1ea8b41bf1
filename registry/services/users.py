"""Users: people with a name and a password."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from registry.auth.books import Actor, Event, note
from registry.auth.keyring import Keyring
from registry.auth.passwords import Passwords, require_usable
from registry.auth.subjects import Subject, SubjectKind, parse_account_name
from registry.errors import (
    AccountNameInvalidError,
    ConflictError,
    InputInvalidError,
    NotFoundError,
)
from registry.metadata import grants, users
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.metadata.users import UserRow

__all__ = ["Imported", "UserRow", "Users", "find_user_or_raise"]

# A cost above 15 would keep a thread busy for seconds at each try.
_HTPASSWD = re.compile(r"(?P<name>[^:]+):(?P<hash>\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53})")


def find_user_or_raise(tx: Transaction, name: str, *, lock: bool = False) -> UserRow:
    found = users.find(tx, name, lock=lock)
    if found is None:
        raise NotFoundError(f"there is no user {name!r}")
    return found


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an htpasswd file: names added, and names that were there already."""

    added: list[str]
    skipped: list[str]


class Users:
    """Adding, changing and removing users."""

    def __init__(self, database: Database, keyring: Keyring, passwords: Passwords) -> None:
        self._db = database
        self._keyring = keyring
        self._passwords = passwords

    async def is_any(self) -> bool:
        return await self._db.read(users.is_any)

    async def list_page(self, n: int, last: str = "") -> list[UserRow]:
        """At most `n` users after `last`, by name."""
        return await self._db.read(lambda tx: users.list_page(tx, n, last))

    async def get(self, name: str) -> UserRow:
        """The user; NotFoundError."""
        return await self._db.read(lambda tx: find_user_or_raise(tx, name))

    async def add(
        self, name: str, password: str | None, actor: Actor, *, admin: bool = False
    ) -> UserRow:
        """Add a user, without a password one that only has tokens.

        Raises AccountNameInvalidError, PasswordInvalidError, ConflictError.
        """
        parse_account_name(name)
        if password is not None:
            require_usable(password)
        await self._keyring.prepare()  # from the first user on there are sign-ins
        stored = None if password is None else await self._passwords.hash(password)

        def work(tx: Transaction) -> UserRow:
            if not users.insert(tx, name, stored, admin=admin):
                raise ConflictError(f"there is a user {name!r} already")
            note(tx, actor, Event.USER_ADD, name, admin=admin)
            return find_user_or_raise(tx, name)

        return await self._db.write(work, actor=actor.name)

    async def import_htpasswd(self, lines: Iterable[str], actor: Actor) -> Imported:
        """Add the users of an htpasswd file (`htpasswd -B`), all or none; those there stay.

        Raises InputInvalidError, which names the line.
        """
        entries = [_read_entry(number, line) for number, line in enumerate(lines, 1)]
        found = [entry for entry in entries if entry is not None]
        await self._keyring.prepare()

        def work(tx: Transaction) -> Imported:
            imported = Imported([], [])
            for name, stored in found:
                added = users.insert(tx, name, stored, admin=False)
                (imported.added if added else imported.skipped).append(name)
                if added:
                    note(tx, actor, Event.USER_ADD, name, admin=False, imported=True)
            return imported

        return await self._db.write(work, actor=actor.name)

    async def set_password(self, name: str, password: str, actor: Actor) -> None:
        """Set another password. All that was signed in with the old one ends.

        Raises NotFoundError, PasswordInvalidError.
        """
        require_usable(password)
        hashed = await self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            users.set_password(tx, find_user_or_raise(tx, name, lock=True), hashed)
            note(tx, actor, Event.USER_CHANGE, name, password=True)

        await self._db.write(work, actor=actor.name)

    async def change(
        self, name: str, actor: Actor, *, disabled: bool | None = None, admin: bool | None = None
    ) -> UserRow:
        """Shut a user out or let her in again, make her an admin or not; NotFoundError."""

        def work(tx: Transaction) -> UserRow:
            user = find_user_or_raise(tx, name, lock=True)
            changed: dict[str, Any] = {}
            if disabled is not None and disabled != user.disabled:
                users.set_disabled(tx, user, disabled=disabled)
                changed["disabled"] = disabled
            if admin is not None and admin != user.admin:
                users.set_admin(tx, user, admin=admin)
                changed["admin"] = admin
            if changed:
                note(tx, actor, Event.USER_CHANGE, name, **changed)
            return find_user_or_raise(tx, name)

        return await self._db.write(work, actor=actor.name)

    async def remove(self, name: str, actor: Actor) -> None:
        """Remove a user with her tokens and grants. NotFoundError; ConflictError for the last one:
        without users the registry would be open to everybody again.
        """

        def work(tx: Transaction) -> None:
            user = find_user_or_raise(tx, name, lock=True)
            if not users.is_other(tx, user):
                raise ConflictError(
                    f"{name} is the last user, and without users anybody could push; "
                    "add another first"
                )
            grants.delete_all_of(tx, str(Subject(SubjectKind.USER, name)))
            users.delete(tx, user)
            note(tx, actor, Event.USER_REMOVE, name)

        await self._db.write(work, actor=actor.name)


def _read_entry(number: int, line: str) -> tuple[str, str] | None:
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    match = _HTPASSWD.fullmatch(text)
    if match is None:
        # The line may hold a hash that is easy to break: it is not repeated.
        raise InputInvalidError(
            f"line {number} is not NAME:BCRYPT with a cost of 4 to 15; make it with: htpasswd -B"
        )
    try:
        return parse_account_name(match["name"]), match["hash"]
    except AccountNameInvalidError as error:
        raise InputInvalidError(f"line {number}: {error}") from error
