"""Groups of users, as subjects of grants."""

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.subjects import Subject, SubjectKind, parse_account_name
from registry.errors import ConflictError, NotFoundError
from registry.metadata.access import grants, groups
from registry.metadata.access.groups import GroupRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.services.access.users import find_user_or_raise


class Group(Struct, frozen=True):
    """A group with the names of its members. `created_at` is in microseconds."""

    name: str
    created_at: int
    members: list[str]


def find_group_or_raise(tx: Transaction, name: str, *, lock: bool = False) -> GroupRow:
    found = groups.find(tx, name, lock=lock)
    if found is None:
        raise NotFoundError(f"no group {name!r}")
    return found


def _read(tx: Transaction, row: GroupRow) -> Group:
    return Group(row.name, row.created_at, groups.list_members(tx, row))


class Groups:
    """Management of groups and their members."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_page(self, n: int, last: str = "") -> list[Group]:
        """Return at most `n` groups after `last`, ordered by name."""
        return await self._db.read(
            lambda tx: [_read(tx, row) for row in groups.list_page(tx, n, last)]
        )

    async def get(self, name: str) -> Group:
        """Return the group. Raises NotFoundError."""
        return await self._db.read(lambda tx: _read(tx, find_group_or_raise(tx, name)))

    async def add(self, name: str, actor: Actor) -> Group:
        """Add a group. Raises AccountNameInvalidError, ConflictError."""
        parse_account_name(name)

        def work(tx: Transaction) -> Group:
            if not groups.insert(tx, name):
                raise ConflictError(f"the group {name!r} already exists")
            grants.delete_all_of(tx, str(Subject(SubjectKind.GROUP, name)))
            record(tx, actor, Event.GROUP_CREATE, name)
            return _read(tx, find_group_or_raise(tx, name))

        return await self._db.write(work, actor=actor.name)

    async def remove(self, name: str, actor: Actor) -> None:
        """Remove a group with its grants. Its members are not removed. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            group = find_group_or_raise(tx, name, lock=True)
            grants.delete_all_of(tx, str(Subject(SubjectKind.GROUP, name)))
            groups.delete(tx, group)
            record(tx, actor, Event.GROUP_DELETE, name)

        await self._db.write(work, actor=actor.name)

    async def add_member(self, name: str, user: str, actor: Actor) -> Group:
        """Add a user to a group. No effect if the user is a member. Raises NotFoundError."""

        def work(tx: Transaction) -> Group:
            group = find_group_or_raise(tx, name, lock=True)
            if groups.add_member(tx, group, find_user_or_raise(tx, user)):
                record(tx, actor, Event.GROUP_UPDATE, name, added=user)
            return _read(tx, group)

        return await self._db.write(work, actor=actor.name)

    async def remove_member(self, name: str, user: str, actor: Actor) -> Group:
        """Remove a user from a group. Raises NotFoundError, also if the user is not a member."""

        def work(tx: Transaction) -> Group:
            group = find_group_or_raise(tx, name, lock=True)
            if not groups.remove_member(tx, group, find_user_or_raise(tx, user)):
                raise NotFoundError(f"{user} is not in the group {name}")
            record(tx, actor, Event.GROUP_UPDATE, name, removed=user)
            return _read(tx, group)

        return await self._db.write(work, actor=actor.name)
