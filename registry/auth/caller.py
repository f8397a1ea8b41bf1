"""The caller of a request and the data that decides what the caller may do."""

import math
from collections.abc import Callable, Collection
from functools import cache

from msgspec import Struct

from registry.auth.policy.actions import (
    ALL_RIGHTS,
    NO_RIGHTS,
    Action,
    GrantAction,
    Rights,
    allowed_actions,
)
from registry.auth.policy.packed_scopes import PackedScopes
from registry.auth.policy.patterns import EVERYTHING, PatternScope, RepositoryPattern
from registry.auth.policy.policy import Account, Policy
from registry.auth.policy.principals import ANONYMOUS, Principal
from registry.auth.policy.scopes import Scopes
from registry.oci.names import RepositoryName

_RIGHTS = {
    Action.PULL: frozenset({GrantAction.PULL}),
    Action.PUSH: frozenset({GrantAction.CREATE, GrantAction.OVERWRITE}),
    Action.DELETE: frozenset({GrantAction.DELETE}),
    Action.FILL: frozenset({GrantAction.FILL}),
}
# The answers to a push reveal what the repository contains, so a push needs pull as well.
_NEEDED = {
    Action.PULL: frozenset({Action.PULL}),
    Action.PUSH: frozenset({Action.PULL, Action.PUSH}),
    Action.DELETE: frozenset({Action.DELETE}),
}


@cache  # there are only sixteen sets of actions, and this took most of the time spent on a token
def rights_of_actions(actions: frozenset[Action]) -> Rights:
    """Return the rights that the actions of a token stand for."""
    return frozenset().union(*(_RIGHTS[action] for action in actions))


def needed_actions(action: Action) -> frozenset[Action]:
    """Return the actions that a token must have for the action of a route."""
    return _NEEDED[action]


_NOT_ADMIN = ALL_RIGHTS - {GrantAction.ADMIN}


class Validity(Struct, frozen=True):
    """How long a decision holds if no change of the policy or the content ends it before.

    `expires_at` is in microseconds since the epoch, `deadline` a value of `time.monotonic`.
    """

    expires_at: float = math.inf
    deadline: float = math.inf

    def limited_to(self, other: "Validity") -> "Validity":
        """Return the shorter time of the two."""
        return Validity(min(self.expires_at, other.expires_at), min(self.deadline, other.deadline))


ALWAYS = Validity()


class Caller(Struct, frozen=True):
    """The caller of a request.

    `scopes` are those of the caller's token; None means that no token limits the caller. `rights`
    returns the current rights in a repository, from the grants or from an external issuer. `since`
    is the policy revision at which the token was issued. `has_refresh_token` means that the caller
    signed in with a refresh token in place of a password. Such a caller administers nothing.
    `validity` is None if each request has to be authenticated.
    """

    principal: Principal
    account: Account | None
    policy: Policy | None
    rights: Callable[[RepositoryName], Rights]
    scopes: Scopes | PackedScopes | None = None
    since: int = 0
    has_refresh_token: bool = False
    validity: Validity | None = None

    def rights_in(self, name: RepositoryName) -> Rights:
        """Return the caller's rights in the repository, within the scopes of the token."""
        return self.rights(name) & self._bound(name)

    def may(self, action: Action, name: RepositoryName | None) -> bool:
        """Return whether the caller may do `action`. Always True without a repository."""
        if name is None:
            return True
        return _NEEDED[action] <= allowed_actions(self.rights_in(name))

    def may_fill(self, name: RepositoryName) -> bool:
        """Return whether a pull may fetch content with the credentials of a mirror."""
        return GrantAction.FILL in self.rights_in(name)

    def may_pull(self, name: RepositoryName) -> bool:
        return self.may(Action.PULL, name)

    def is_pulled_by_anybody(self, name: RepositoryName) -> bool:
        """Return whether anonymous callers may pull from the repository.

        False with an external issuer, because it does not report this.
        """
        if self.policy is None:
            return self is OPEN
        return GrantAction.PULL in self.policy.rights(None, name)

    @property
    def visible(self) -> list[RepositoryPattern]:
        """Patterns of the repositories to show in the catalog.

        Only these are queried: the time of a larger query would reveal how many others exist. If
        `sees_all` is false, the caller may see only some of the matching repositories.
        """
        if self.policy is not None and (self._is_for_all or not self.sees_all):
            return self.policy.list_visible(self.account)
        names = None if self.scopes is None else self.scopes.names
        if names is None:
            return [EVERYTHING]
        named = filter(self.may_pull, names)
        return [RepositoryPattern(str(name), PatternScope.EXACT) for name in named]

    @property
    def sees_all(self) -> bool:
        """Whether the caller may see every repository that matches `visible`.

        A token with digests cannot list its repositories, so `may_pull` has to be checked for each
        one.
        """
        return self._is_for_all or (self.scopes is not None and self.scopes.names is not None)

    @property
    def _is_for_all(self) -> bool:
        """Whether the catalog is not limited by the scopes of a token."""
        return self.scopes is None or self.scopes.catalog

    @property
    def named_repositories(self) -> Collection[RepositoryName] | None:
        """The repositories that the token names. None without a token or if it has digests."""
        names = None if self.scopes is None else self.scopes.names
        return None if names is None else list(names)

    def could(self, action: Action, name: RepositoryName) -> bool:
        """Return whether another token would allow the caller to do `action`."""
        return _NEEDED[action] <= allowed_actions(self.rights(name))

    def could_pull(self, name: RepositoryName) -> bool:
        """Return whether another token would allow the caller to pull."""
        return GrantAction.PULL in self.rights(name)

    def _bound(self, name: RepositoryName) -> Rights:
        if self.scopes is None:
            return _NOT_ADMIN if self.has_refresh_token else ALL_RIGHTS
        if self.policy is not None and self.policy.was_removed(name, since=self.since):
            return NO_RIGHTS
        rights = rights_of_actions(self.scopes.actions_in(name))
        if self.policy is not None and GrantAction.PULL in rights:
            # Clients do not ask for fill, so a token to pull includes it where it is granted.
            return rights | {GrantAction.FILL}
        return rights


OPEN = Caller(ANONYMOUS, None, None, lambda _: ALL_RIGHTS, validity=ALWAYS)
"""Every caller, if this registry needs no sign-in."""
