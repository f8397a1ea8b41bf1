"""Who makes a request, with all that decides what she may do."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

from registry.auth.actions import ALL_RIGHTS, NO_RIGHTS, Action, Right, Rights, allowed_actions
from registry.auth.packed_scopes import PackedScopes
from registry.auth.patterns import EVERYTHING, Reach, RepositoryPattern
from registry.auth.policy import Account, Policy
from registry.auth.principals import ANONYMOUS, Principal
from registry.auth.scopes import Scopes
from registry.oci.names import RepositoryName

_RIGHTS = {
    Action.PULL: frozenset({Right.PULL}),
    Action.PUSH: frozenset({Right.CREATE, Right.OVERWRITE}),
    Action.DELETE: frozenset({Right.DELETE}),
}
# Whoever pushes is told what is there already, so she must be allowed to see it.
_NEEDED = {
    Action.PULL: frozenset({Action.PULL}),
    Action.PUSH: frozenset({Action.PULL, Action.PUSH}),
    Action.DELETE: frozenset({Action.DELETE}),
}


@cache  # there are eight sets of actions, and this was most of what a token cost
def rights_of_actions(actions: frozenset[Action]) -> Rights:
    """What actions, as tokens list them, stand for."""
    return frozenset().union(*(_RIGHTS[action] for action in actions))


def needed_actions(action: Action) -> frozenset[Action]:
    """The actions a token must hold for what a route asks."""
    return _NEEDED[action]

_NOT_ADMIN = ALL_RIGHTS - {Right.ADMIN}


_NOT_ADMIN = ALL_RIGHTS - {Right.ADMIN}


@dataclass(frozen=True, slots=True)
class Caller:
    """`scopes` is what a token bounds her to, None for no bound. `rights` tells what the grants,
    or an outside issuer, give her in a repository now. `has_refresh_token`: she gave one in place
    of a password, with which she administers nothing.
    """

    principal: Principal
    account: Account | None
    policy: Policy | None
    rights: Callable[[RepositoryName], Rights]
    scopes: Scopes | PackedScopes | None = None
    since: int = 0
    has_refresh_token: bool = False

    def rights_in(self, name: RepositoryName) -> Rights:
        """What she may do in the repository: what she has been given, within her token."""
        return self.rights(name) & self._bound(name)

    def may(self, action: Action, name: RepositoryName | None) -> bool:
        """Whether she may do `action`. What concerns no repository is open to all let in."""
        if name is None:
            return True
        return _NEEDED[action] <= allowed_actions(self.rights_in(name))

    def may_pull(self, name: RepositoryName) -> bool:
        return self.may(Action.PULL, name)

    def is_pulled_by_anybody(self, name: RepositoryName) -> bool:
        """Whether anonymous callers may pull from the repository. An outside issuer does not
        tell, so then nobody may.
        """
        if self.policy is None:
            return self is OPEN
        return Right.PULL in self.policy.rights(None, name)

    @property
    def visible(self) -> list[RepositoryPattern]:
        """The repositories that the catalogue shows her. No other is looked at: the time that took
        would tell how many there are. Where `sees_all` is false, only some of them are hers to see.
        """
        if self.policy is not None and (self._is_for_all or not self.sees_all):
            return self.policy.list_visible(self.account)
        names = None if self.scopes is None else self.scopes.names
        if names is None:
            return [EVERYTHING]
        named = filter(self.may_pull, names)
        return [RepositoryPattern(str(name), Reach.EXACT) for name in named]

    @property
    def sees_all(self) -> bool:
        """Whether she may see each repository of `visible`: a token with digests cannot list its
        repositories, so there `may_pull` has to be asked for each.
        """
        return self._is_for_all or (self.scopes is not None and self.scopes.names is not None)

    @property
    def _is_for_all(self) -> bool:
        """Whether no token bounds the catalogue."""
        return self.scopes is None or self.scopes.catalog

    @property
    def named_repositories(self) -> Collection[RepositoryName] | None:
        """The repositories that her token names; None where nothing bounds her, and where they
        cannot be listed.
        """
        names = None if self.scopes is None else self.scopes.names
        return None if names is None else list(names)

    def could(self, action: Action, name: RepositoryName) -> bool:
        """Whether another token would let her do it."""
        return _NEEDED[action] <= allowed_actions(self.rights(name))

    def could_pull(self, name: RepositoryName) -> bool:
        """Whether another token would let her pull."""
        return Right.PULL in self.rights(name)

    def _bound(self, name: RepositoryName) -> Rights:
        if self.scopes is None:
            return _NOT_ADMIN if self.has_refresh_token else ALL_RIGHTS
        if self.policy is not None and self.policy.was_removed(name, since=self.since):
            return NO_RIGHTS
        return rights_of_actions(self.scopes.actions_in(name))


OPEN = Caller(ANONYMOUS, None, None, lambda _: ALL_RIGHTS)
"""Anybody, where nobody needs to sign in."""
