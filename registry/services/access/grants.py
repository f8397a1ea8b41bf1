"""Grants: permissions of subjects in repositories."""

from collections.abc import Callable

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.actions import GrantAction, Rights, format_rights, parse_rights
from registry.auth.policy.grants import Grant
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy import Decision
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.subjects import ANONYMOUS, Subject, SubjectKind
from registry.errors import InputInvalidError, NotFoundError
from registry.metadata.access import grants, groups, robots, users
from registry.metadata.access.grants import GrantRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName

__all__ = ["Decision", "Grant", "Grants"]


_PAGE = 1000
"""Grants per query."""


def _read(row: GrantRow) -> Grant:
    return Grant(
        row.id,
        Subject.parse(row.subject),
        RepositoryPattern.parse(row.pattern),
        parse_rights(row.actions.split(",")),
    )


def _hold_subject(tx: Transaction, subject: Subject, *, unseen: bool) -> None:
    """Lock the row of the subject. Raises NotFoundError if it does not exist, unless `unseen`.

    A concurrent removal of the subject waits for the lock and then also deletes the new grant. A
    missing subject is most likely a typing error.
    """
    found: object = subject
    if subject.kind is SubjectKind.USER:
        found = users.find(tx, subject.name, lock=True)
    elif subject.kind is SubjectKind.GROUP:
        found = groups.find(tx, subject.name, lock=True)
    elif subject.kind is SubjectKind.ROBOT:
        found = robots.find(tx, subject.name, lock=True)
    else:
        tx.lock_name(f"grants to {subject}")  # concurrent grants would each see half of the actions
    if found is None and not unseen:
        raise NotFoundError(f"no {subject.kind.value} {subject.name!r}")


class Grants:
    """Management and explanation of grants."""

    def __init__(self, database: Database, policies: PolicyCache) -> None:
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
        """Return at most `n` grants after the id `last`, optionally of one subject.

        `may_see` filters the grants on the reading thread, because it may reject many of them.
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

        return await self._db.read(work, timeout_s=LONG_TIMEOUT_S)

    async def get(self, grant_id: int) -> Grant:
        """Return the grant. Raises NotFoundError."""

        def work(tx: Transaction) -> Grant:
            row = grants.find_by_id(tx, grant_id)
            if row is None:
                raise NotFoundError(f"no grant {grant_id}")
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
        """Grant `rights` in addition to those the subject already has for the same pattern.

        With `unseen`, a subject that does not exist is no error: the caller must not learn which
        accounts exist. An account that is created later under that name does not get the grant.
        Raises NotFoundError, and InputInvalidError for rights that anonymous cannot be granted.
        """
        if subject == ANONYMOUS and rights != {GrantAction.PULL}:
            raise InputInvalidError("anonymous can be granted only pull")

        def work(tx: Transaction) -> Grant:
            _hold_subject(tx, subject, unseen=unseen)
            before = grants.find(tx, str(subject), str(pattern))
            held = parse_rights(before.actions.split(",")) if before else frozenset()
            row = grants.put(tx, str(subject), str(pattern), ",".join(format_rights(rights | held)))
            record(
                tx,
                actor,
                Event.GRANT_CREATE,
                str(subject),
                pattern=row.pattern,
                actions=row.actions,
            )
            return _read(row)

        return await self._db.write(work, actor=actor.name)

    async def remove(
        self,
        subject: Subject,
        pattern: RepositoryPattern,
        actor: Actor,
        rights: Rights | None = None,
    ) -> None:
        """Revoke a grant, or only `rights` of it. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            row = grants.find(tx, str(subject), str(pattern))
            if row is None:
                raise NotFoundError(f"{subject} has no grant for {pattern}")
            held = parse_rights(row.actions.split(","))
            left = held - (held if rights is None else rights)
            if left == held:
                raise NotFoundError(f"{subject} has none of these actions granted for {pattern}")
            if left:
                grants.put(tx, row.subject, row.pattern, ",".join(format_rights(left)))
            else:
                grants.delete(tx, row)
            taken = ",".join(format_rights(held - left))
            record(tx, actor, Event.GRANT_DELETE, row.subject, pattern=row.pattern, actions=taken)

        await self._db.write(work, actor=actor.name)

    async def check(
        self, subject: Subject, name: RepositoryName, wanted: Rights, *, unseen: bool = False
    ) -> Decision:
        """Return whether the subject has all rights in `wanted` for the repository, and why.

        With `unseen`, only grants are evaluated, as if the account existed, enabled and not an
        admin.
        """
        policy = await self._policies.get()
        return policy.explain(subject, name, wanted, unseen=unseen)
