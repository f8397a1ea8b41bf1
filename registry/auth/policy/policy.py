"""The access policy and the patterns that have quotas, in memory, as of one policy revision."""

import copy
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TypeVar

from msgspec import Struct

from registry.auth.policy.actions import (
    ALL_RIGHTS,
    NO_RIGHTS,
    GrantAction,
    Rights,
    require_pull,
)
from registry.auth.policy.grants import Bound, Grant, GrantIndex, read_bounds, with_admin
from registry.auth.policy.patterns import (
    EVERYTHING,
    PatternScope,
    RepositoryPattern,
    list_covering,
    minimize,
)
from registry.auth.policy.subjects import (
    ANONYMOUS,
    AUTHENTICATED,
    ROBOT_SIGN_IN,
    Subject,
    SubjectKind,
)
from registry.errors import InputInvalidError
from registry.metadata.access.policy import PolicyChanges, PolicyRows
from registry.metadata.access.robots import RobotRow
from registry.metadata.access.secrets import SecretRow
from registry.metadata.access.signing_keys import KeyState, SigningKeyRow
from registry.metadata.access.users import UserRow
from registry.metadata.engine.transaction import Part
from registry.metadata.quotas.quotas import list_matching_patterns
from registry.oci.names import RepositoryName, is_repository_name

_SHOWING: Rights = frozenset({GrantAction.PULL, GrantAction.ADMIN})
"""The rights of which one is enough to see a repository."""

Row = TypeVar("Row", UserRow, RobotRow)

logger = logging.getLogger(__name__)


class Decision(Struct, frozen=True):
    """An access decision with its reason: the grants that allow it, or a sentence."""

    allowed: bool
    reason: str
    grants: tuple[Grant, ...] = ()


class Account(Struct, frozen=True):
    """The user or robot that owns a valid credential, with the bounds of the credential."""

    name: str
    admin: bool
    subjects: tuple[Subject, ...]
    namespace: str | None
    bounds: tuple[Bound, ...] | None


class Policy:
    """The policy rows, indexed for the lookups of every request. Immutable."""

    def __init__(self, rows: PolicyRows, *, personal_namespaces: bool) -> None:
        self.revision = rows.revision
        self.has_users = bool(rows.users)
        self.keys: dict[str, SigningKeyRow] = {row.kid: row for row in rows.keys}
        self._removals = rows.removals
        self._quotas = rows.quotas
        self._personal = personal_namespaces
        self._users = {row.name: row for row in rows.users}
        self._robots = {row.name: row for row in rows.robots}
        self._secrets: dict[str, SecretRow] = {}
        self._bounds: dict[str, tuple[Bound, ...] | None] = {}
        for secret in rows.secrets:
            self._add_secret(secret)
        self._groups = _group(rows.memberships)
        self._grants = GrantIndex(rows.grants)

    def updated(self, changes: PolicyChanges) -> "Policy":
        """Return the policy with the changes applied. It shares unchanged data with this one."""
        policy = copy.copy(self)
        policy._apply(changes)  # noqa: SLF001 - an object of this class
        return policy

    def _apply(self, changes: PolicyChanges) -> None:
        """Apply changes. Copies the indexes that change: they are shared with another policy."""
        changed = changes.changed
        self.revision = changes.revision
        self._users = _replace(self._users, changed[Part.USER], changes.users)
        self.has_users = bool(self._users)
        self._robots = _replace(self._robots, changed[Part.ROBOT], changes.robots)
        if changed[Part.GROUPS]:
            kept = {k: v for k, v in self._groups.items() if k not in changed[Part.GROUPS]}
            self._groups = kept | _group(changes.memberships)
        if changes.removals:
            self._removals = self._removals | changes.removals
        if changes.keys is not None:
            self.keys = {row.kid: row for row in changes.keys}
        if changes.quotas is not None:
            self._quotas = changes.quotas
        if changed[Part.SECRET]:
            self._secrets, self._bounds = self._secrets.copy(), self._bounds.copy()
            for secret_id in changed[Part.SECRET]:
                self._secrets.pop(secret_id, None)
                self._bounds.pop(secret_id, None)
            for secret in changes.secrets:
                self._add_secret(secret)
        if changed[Part.GRANT]:
            ids = [int(key) for key in changed[Part.GRANT]]
            self._grants = self._grants.replaced(ids, changes.grants)

    def _add_secret(self, row: SecretRow) -> None:
        try:
            self._bounds[row.id] = read_bounds(row.scopes)
        except InputInvalidError as error:
            # Without its bounds the secret would allow too much. Other secrets stay valid.
            whose = f"token {row.name!r} of {row.user}" if row.user else f"robot {row.robot}"
            logger.error("the secret of %s cannot be used: %s", whose, error)  # noqa: TRY400 - the message is complete
        else:
            self._secrets[row.id] = row

    @property
    def active_key(self) -> SigningKeyRow | None:
        """The key that signs new tokens."""
        return next((k for k in self.keys.values() if k.state is KeyState.ACTIVE), None)

    def find_user(self, name: str) -> UserRow | None:
        return self._users.get(name)

    def find_robot(self, name: str) -> RobotRow | None:
        return self._robots.get(name)

    def find_secret(self, secret_id: str) -> SecretRow | None:
        return self._secrets.get(secret_id)

    def find_account(self, credential: str, now: int) -> Account | None:
        """Return the account of a credential that is valid at `now` (microseconds), else None."""
        kind, _, rest = credential.partition(":")
        name, _, generation = rest.rpartition(":")
        if kind == "user":
            user = self._users.get(name)
            return self._of_user(user) if user and user.generation == generation else None
        if kind == "robot":
            robot = self._robots.get(name)
            return self._of_robot(robot, now) if robot and robot.generation == generation else None
        secret = self._secrets.get(rest) if kind == "secret" else None
        return self._of_secret(secret, now) if secret else None

    def find_expiry(self, credential: str) -> int | None:
        """Return the time at which a valid credential expires, in microseconds; None for never."""
        kind, _, rest = credential.partition(":")
        secret = self._secrets.get(rest) if kind == "secret" else None
        name = rest.rpartition(":")[0] if kind == "robot" else secret.robot if secret else None
        robot = self._robots.get(name or "")
        ends = [row.expires_at for row in (secret, robot) if row and row.expires_at is not None]
        return min(ends, default=None)

    def _of_secret(self, secret: SecretRow, now: int) -> Account | None:
        if secret.expires_at is not None and secret.expires_at <= now:
            return None
        bounds = self._bounds[secret.id]
        if secret.user is not None:
            user = self._users.get(secret.user)
            return self._of_user(user, bounds) if user else None
        robot = self._robots.get(secret.robot or "")
        return self._of_robot(robot, now, bounds) if robot else None

    def _of_user(self, user: UserRow, bounds: tuple[Bound, ...] | None = None) -> Account | None:
        if user.disabled:
            return None
        owns = user.namespace and is_repository_name(user.name)
        namespace = user.name if owns else None
        return Account(user.name, user.admin, self._subjects(user), namespace, bounds)

    def _subjects(self, user: UserRow) -> tuple[Subject, ...]:
        own = Subject(SubjectKind.USER, user.name)
        groups = [Subject(SubjectKind.GROUP, name) for name in self._groups.get(user.name, ())]
        return own, *groups, AUTHENTICATED, ANONYMOUS

    @staticmethod
    def _of_robot(
        robot: RobotRow, now: int, bounds: tuple[Bound, ...] | None = None
    ) -> Account | None:
        if robot.expires_at is not None and robot.expires_at <= now:
            return None
        subjects = (Subject(SubjectKind.ROBOT, robot.name), AUTHENTICATED, ANONYMOUS)
        return Account(ROBOT_SIGN_IN + robot.name, False, subjects, None, bounds)

    def rights(self, account: Account | None, name: RepositoryName) -> Rights:
        """Return the rights of an account in the repository; None is the anonymous caller."""
        text = str(name)
        if account is None:
            return self._granted((ANONYMOUS,), text)
        if account.admin or self._owns(account, text):
            rights = ALL_RIGHTS
        else:
            rights = self._granted(account.subjects, text)
        if account.bounds is None:
            return rights
        bound = (b.rights for b in account.bounds if b.pattern.matches(text))
        return rights & with_admin(frozenset().union(*bound))

    def list_visible(self, account: Account | None) -> list[RepositoryPattern]:
        """Return patterns that together match exactly the repositories that the account can see.

        None is the anonymous caller.
        """
        visible = self._list_granted(account)
        if account is None or account.bounds is None:
            return visible
        within = [bound.pattern for bound in account.bounds if bound.rights & _SHOWING]
        meets = (pattern.intersect(bound) for pattern in visible for bound in within)
        return [pattern for pattern in meets if pattern is not None]

    def _list_granted(self, account: Account | None) -> list[RepositoryPattern]:
        if account is not None and account.admin:
            return [EVERYTHING]
        subjects = (ANONYMOUS,) if account is None else account.subjects
        visible = {
            grant.pattern
            for subject in subjects
            for grant in self._grants.list_of(subject)
            if grant.rights & _SHOWING
        }
        if self._personal and account is not None and account.namespace is not None:
            visible.add(RepositoryPattern(account.namespace, PatternScope.ALL))
        return [EVERYTHING] if EVERYTHING in visible else list(visible)

    def is_admin(self, account: Account | None) -> bool:
        """Return whether the account may administer the registry.

        A bounded token of an admin may not.
        """
        return account is not None and account.admin and account.bounds is None

    def administers(self, account: Account | None, pattern: RepositoryPattern) -> bool:
        """Return whether the account may manage the grants of all repositories of the pattern."""
        if account is None or account.bounds is not None:
            return False
        if account.admin or (
            self._personal
            and account.namespace is not None
            and RepositoryPattern(account.namespace, PatternScope.ALL).covers(pattern)
        ):
            return True
        covering = list_covering(pattern)
        found = (
            self._grants.find(subject, text) for subject in account.subjects for text in covering
        )
        return any(grant is not None and GrantAction.ADMIN in grant.rights for grant in found)

    def list_administered(self, account: Account | None) -> list[RepositoryPattern]:
        """Return patterns that match exactly the repositories that the account administers."""
        if account is None or account.bounds is not None:
            return []
        if account.admin:
            return [EVERYTHING]
        found = {
            grant.pattern
            for subject in account.subjects
            for grant in self._grants.list_of(subject)
            if GrantAction.ADMIN in grant.rights
        }
        if self._personal and account.namespace is not None:
            found.add(RepositoryPattern(account.namespace, PatternScope.ALL))
        return minimize(found)

    def was_removed(self, name: RepositoryName, *, since: int) -> bool:
        """Return whether a repository of this name was removed after policy revision `since`."""
        removal = self._removals.get(name)
        return removal is not None and removal.revision > since

    def was_removed_after(self, name: RepositoryName, moment: int) -> bool:
        """Return whether a repository of this name was removed after `moment`, in microseconds."""
        removal = self._removals.get(name)
        return removal is not None and removal.at > moment

    def is_limited(self, name: RepositoryName) -> bool:
        """Return whether a quota applies to the repository."""
        return not self._quotas.isdisjoint(list_matching_patterns(name))

    def _owns(self, account: Account, name: str) -> bool:
        return (
            self._personal
            and account.namespace is not None
            and name.startswith(f"{account.namespace}/")
        )

    def _granted(self, subjects: Iterable[Subject], name: str) -> Rights:
        rights = NO_RIGHTS
        for grant in self._grants.iter_matching(subjects, name):
            rights |= grant.rights
        return with_admin(rights)

    def explain(
        self, subject: Subject, name: RepositoryName, wanted: Rights, *, unseen: bool = False
    ) -> Decision:
        """Decide whether the subject has all `wanted` rights in the repository, and why.

        `unseen` decides as if the subject had an enabled account that is not an admin.
        """
        account = self._imagine(subject) if unseen else self._find_subject(subject)
        if isinstance(account, str):
            return Decision(False, account)
        if account is not None and account.admin:
            return Decision(True, f"{subject} is an admin, who may do everything")
        if account is not None and self._owns(account, str(name)):
            return Decision(True, f"{name} is in the personal namespace of {subject}")
        subjects = account.subjects if account is not None else _belongs_to(subject)
        found = [
            grant
            for grant in self._grants.iter_matching(subjects, str(name))
            if with_admin(grant.rights) & (wanted | {GrantAction.PULL})
        ]
        given = with_admin(frozenset().union(*(grant.rights for grant in found)))
        if wanted <= require_pull(given):
            return Decision(True, "granted", tuple(found))
        if wanted <= given:
            return Decision(
                False, "granted, but without pull, which every action requires", tuple(found)
            )
        missing = ", ".join(sorted(wanted - given))
        return Decision(False, f"no grant to {subject} allows {missing} in {name}", tuple(found))

    def _imagine(self, subject: Subject) -> Account | None:
        """Return a plausible account of the subject that reveals nothing about its real account."""
        if subject.kind is SubjectKind.USER:
            user = self._users.get(subject.name)
            subjects = self._subjects(user) if user else (subject, AUTHENTICATED, ANONYMOUS)
            return Account(subject.name, False, subjects, subject.name, None)
        if subject.kind is SubjectKind.ROBOT:
            return Account(subject.name, False, (subject, AUTHENTICATED, ANONYMOUS), None, None)
        return None

    def _find_subject(self, subject: Subject) -> Account | str | None:
        """Return the account of a subject, or None if it has none.

        If the subject can do nothing, return a sentence that says why.
        """
        if subject.kind is SubjectKind.USER:
            user = self._users.get(subject.name)
            if user is None:
                return f"no user {subject.name}"
            return self._of_user(user) or f"the user {subject.name} is disabled"
        if subject.kind is SubjectKind.ROBOT:
            robot = self._robots.get(subject.name)
            if robot is None:
                return f"no robot {subject.name}"
            # Expiry is checked at sign-in.
            return Account(robot.name, False, (subject, AUTHENTICATED, ANONYMOUS), None, None)
        return None


def _group(memberships: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the groups of each user."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for user, group in memberships:
        groups[user].append(group)
    return dict(groups)


def _replace(before: dict[str, Row], names: Collection[str], rows: Iterable[Row]) -> dict[str, Row]:
    """Return the rows by name, with the rows of `names` replaced by their current versions."""
    if not names:
        return before
    now = {row.name: row for row in rows}
    return {name: row for name, row in before.items() if name not in names} | now


def _belongs_to(subject: Subject) -> tuple[Subject, ...]:
    """Return a group, `authenticated` or `anonymous` with the subjects that include it."""
    if subject == ANONYMOUS:
        return (ANONYMOUS,)
    return tuple(dict.fromkeys((subject, AUTHENTICATED, ANONYMOUS)))
