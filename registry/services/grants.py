"""Grants: who may do what in which repositories."""

from collections.abc import Callable

from registry.auth.actions import Right, Rights, format_rights, parse_rights
from registry.auth.books import Actor, Event, note
from registry.auth.patterns import RepositoryPattern
from registry.auth.policies import Policies
from registry.auth.policy import Decision, Grant
from registry.auth.subjects import EVERYBODY, Subject, SubjectKind
from registry.errors import InputInvalidError, NotFoundError
from registry.metadata import grants, groups, robots, users
from registry.metadata.call import LONG
from registry.metadata.database import Database
from registry.metadata.grants import GrantRow
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName

__all__ = ["Decision", "Grant", "Grants"]


_PAGE = 1000
"""Grants that are read at once."""


def _read(row: GrantRow) -> Grant:
    return Grant(
        row.id,
        Subject.parse(row.subject),
        RepositoryPattern.parse(row.pattern),
        parse_rights(row.actions.split(",")),
    )


def _hold_subject(tx: Transaction, subject: Subject, *, unseen: bool) -> None:
    """Raise NotFoundError for a subject that is not there: most likely a slip of the pen. The row
    is held, so that its removal waits and then takes the new grant with it.
    """
    found: object = subject
    if subject.kind is SubjectKind.USER:
        found = users.find(tx, subject.name, lock=True)
    elif subject.kind is SubjectKind.GROUP:
        found = groups.find(tx, subject.name, lock=True)
    elif subject.kind is SubjectKind.ROBOT:
        found = robots.find(tx, subject.name, lock=True)
    else:
        tx.lock_name(f"grants to {subject}")  # two at once would each see half of the rights
    if found is None and not unseen:
        raise NotFoundError(f"there is no {subject.kind.value} {subject.name!r}")


class Grants:
    """Adding, removing and explaining grants."""

    def __init__(self, database: Database, policies: Policies) -> None:
        self._db = database
        self._policies = policies

    async def list_page(
        self,
        n: int,
        last: int = 0,
        *,
        subject: Subject | None = None,
        may_see: Callable[[Grant], bool] = lambda _: True,
    ) -> list[Grant]:
        """At most `n` grants after the id `last`, of one subject if it is given, which the caller
        `may_see`. That is asked on the thread that reads: there may be many that she may not.
        """
        whose = None if subject is None else str(subject)
        size = max(n, _PAGE)

        def work(tx: Transaction) -> list[Grant]:
            found: list[Grant] = []
            after, more = last, True
            while len(found) < n and more:
                rows = grants.list_page(tx, size, after, whose)
                found += filter(may_see, map(_read, rows))
                more = len(rows) == size
                after = rows[-1].id if rows else after
            return found[:n]

        return await self._db.read(work, patience=LONG)

    async def get(self, grant_id: int) -> Grant:
        """The grant; NotFoundError."""

        def work(tx: Transaction) -> Grant:
            row = grants.find_by_id(tx, grant_id)
            if row is None:
                raise NotFoundError(f"there is no grant {grant_id}")
            return _read(row)

        return await self._db.read(work)

    async def add(
        self,
        subject: Subject,
        pattern: RepositoryPattern,
        rights: Rights,
        actor: Actor,
        *,
        unseen: bool = False,
    ) -> Grant:
        """Grant `rights`, beside what the subject has by the same pattern already.

        Raises NotFoundError, and InputInvalidError for what nobody gets without signing in.
        `unseen`: a subject that is not there is no error, for callers who must not learn who has
        an account. Whoever gets the name later does not get the grant.
        """
        if subject == EVERYBODY and rights != {Right.PULL}:
            raise InputInvalidError("anonymous may be granted pull, and nothing else")

        def work(tx: Transaction) -> Grant:
            _hold_subject(tx, subject, unseen=unseen)
            before = grants.find(tx, str(subject), str(pattern))
            held = parse_rights(before.actions.split(",")) if before else frozenset()
            row = grants.put(tx, str(subject), str(pattern), ",".join(format_rights(rights | held)))
            note(tx, actor, Event.GRANT_ADD, str(subject), pattern=row.pattern, actions=row.actions)
            return _read(row)

        return await self._db.write(work, actor=actor.name)

    async def remove(
        self,
        subject: Subject,
        pattern: RepositoryPattern,
        actor: Actor,
        rights: Rights | None = None,
    ) -> None:
        """Take a grant back, or those `rights` of it; NotFoundError."""

        def work(tx: Transaction) -> None:
            row = grants.find(tx, str(subject), str(pattern))
            if row is None:
                raise NotFoundError(f"{subject} has no grant for {pattern}")
            held = parse_rights(row.actions.split(","))
            left = held - (held if rights is None else rights)
            if left == held:
                raise NotFoundError(f"{subject} has no grant of that for {pattern}")
            if left:
                grants.put(tx, row.subject, row.pattern, ",".join(format_rights(left)))
            else:
                grants.delete(tx, row)
            taken = ",".join(format_rights(held - left))
            note(tx, actor, Event.GRANT_REMOVE, row.subject, pattern=row.pattern, actions=taken)

        await self._db.write(work, actor=actor.name)

    async def check(
        self, subject: Subject, name: RepositoryName, wanted: Rights, *, unseen: bool = False
    ) -> Decision:
        """Whether the subject may do all of `wanted` there, and why. `unseen`: by grants alone, as
        if there were an account of the name, enabled and no admin.
        """
        policy = await self._policies.get()
        return policy.explain(subject, name, wanted, unseen=unseen)
