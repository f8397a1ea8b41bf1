"""Grants of the access policy, parsed from their rows and indexed by subject and pattern."""

import copy
import logging
from collections.abc import Collection, Iterable, Iterator

import msgspec
from msgspec import Struct

from registry.auth.policy.actions import ALL_RIGHTS, GrantAction, Rights, parse_rights
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.subjects import ANONYMOUS, Subject
from registry.errors import InputInvalidError
from registry.metadata.access.grants import GrantRow
from registry.oci.names import list_patterns

_UNSIGNED: Rights = frozenset({GrantAction.PULL})
"""The rights that can be granted to anonymous callers."""

_BOUNDS = msgspec.json.Decoder(list[tuple[str, list[str]]])

logger = logging.getLogger(__name__)


class Grant(Struct, frozen=True):
    """A grant, parsed from its row."""

    id: int
    subject: Subject
    pattern: RepositoryPattern
    rights: Rights


class Bound(Struct, frozen=True):
    """An upper bound on what a secret allows in the repositories of a pattern."""

    pattern: RepositoryPattern
    rights: Rights


def read_grant(row: GrantRow) -> Grant | None:
    """Parse a grant row; return None for a row that only newer code can read: it grants nothing."""
    try:
        pattern = RepositoryPattern.parse(row.pattern)
        subject = Subject.parse(row.subject)
        rights = parse_rights(row.actions.split(","))
    except InputInvalidError as error:
        logger.error("grant %d has no effect: %s", row.id, error)  # noqa: TRY400 - the message is complete
        return None
    if subject == ANONYMOUS:
        rights &= _UNSIGNED  # even if the row grants more
    return Grant(row.id, subject, pattern, rights)


def read_bounds(text: str | None) -> tuple[Bound, ...] | None:
    """Parse the `scopes` of a secret: JSON pairs of a pattern and actions. None means no bound.

    Raises InputInvalidError for anything else.
    """
    if text is None:
        return None
    try:
        pairs = _BOUNDS.decode(text)
    except msgspec.DecodeError as error:
        raise InputInvalidError(f"the scopes of the secret cannot be parsed: {error}") from error
    return tuple(
        Bound(RepositoryPattern.parse(pattern), parse_rights(actions)) for pattern, actions in pairs
    )


def with_admin(rights: Rights) -> Rights:
    """Return the rights, or all rights if they include `admin`."""
    return ALL_RIGHTS if GrantAction.ADMIN in rights else rights


class GrantIndex:
    """The grants, indexed for the lookups of every request. Immutable."""

    def __init__(self, rows: Iterable[GrantRow]) -> None:
        self._by_id: dict[int, Grant] = {}
        self._by_subject: dict[Subject, dict[int, Grant]] = {}
        self._by_pattern: dict[tuple[Subject, str], Grant] = {}
        for row in rows:
            self._add(read_grant(row))

    def _add(self, grant: Grant | None) -> None:
        if grant is not None:
            self._by_id[grant.id] = grant
            self._by_subject.setdefault(grant.subject, {})[grant.id] = grant
            # The database ensures that a subject and a pattern have one row.
            self._by_pattern[grant.subject, str(grant.pattern)] = grant

    def replaced(self, ids: Collection[int], rows: Iterable[GrantRow]) -> "GrantIndex":
        """Return the index with the grants of `ids` replaced by `rows`, their current versions.

        It shares unchanged data with this index.
        """
        index = copy.copy(self)
        index._replace(ids, [read_grant(row) for row in rows])
        return index

    def _replace(self, ids: Collection[int], new: Collection[Grant | None]) -> None:
        """Replace grants. Copies the maps that change: they are shared with another index."""
        old = [self._by_id[each] for each in ids if each in self._by_id]
        subjects = {grant.subject for grant in (*old, *new) if grant is not None}
        self._by_id, self._by_pattern = self._by_id.copy(), self._by_pattern.copy()
        self._by_subject = self._by_subject | {
            subject: self._by_subject.get(subject, {}).copy() for subject in subjects
        }
        for grant in old:
            del self._by_id[grant.id]
            del self._by_subject[grant.subject][grant.id]
            del self._by_pattern[grant.subject, str(grant.pattern)]
        for added in new:
            self._add(added)
        for subject in subjects:
            if not self._by_subject.get(subject):
                self._by_subject.pop(subject, None)

    def list_of(self, subject: Subject) -> Collection[Grant]:
        """Return the grants of the subject."""
        return self._by_subject.get(subject, {}).values()

    def find(self, subject: Subject, pattern: str) -> Grant | None:
        """Return the grant of the subject for exactly this pattern."""
        return self._by_pattern.get((subject, pattern))

    def iter_matching(self, subjects: Iterable[Subject], name: str) -> Iterator[Grant]:
        """Yield the grants of the subjects that match the repository, by index lookups."""
        patterns = list_patterns(name)
        for subject in subjects:
            if subject in self._by_subject:
                for pattern in patterns:
                    grant = self._by_pattern.get((subject, pattern))
                    if grant is not None:
                        yield grant
