"""The caller of an operation of the admin API, and what the caller may administer."""

from msgspec import Struct

from registry.auth.audit_log import Actor
from registry.auth.caller import Caller
from registry.auth.policy.actions import ALL_RIGHTS, Action, Rights
from registry.auth.policy.patterns import EVERYTHING, RepositoryPattern
from registry.auth.policy.principals import OPERATOR, Principal
from registry.oci.names import RepositoryName
from registry.services.access.access import AccessServices
from registry.services.services import Services


class OperationContext(Struct, frozen=True):
    """The context of an operation. `caller` is None for the operator, who may do everything."""

    registry: Services
    access: AccessServices
    actor: Actor
    caller: Caller | None

    @classmethod
    def of_operator(cls, registry: Services, access: AccessServices) -> "OperationContext":
        return cls(registry, access, Actor(OPERATOR.name), None)

    @property
    def principal(self) -> Principal:
        return OPERATOR if self.caller is None else self.caller.principal

    @property
    def is_admin(self) -> bool:
        """Whether the caller may administer the registry."""
        if self.caller is None:
            return True
        policy = self.caller.policy
        return policy is not None and policy.is_admin(self.caller.account)

    @property
    def is_bounded(self) -> bool:
        """Whether the caller signed in with a token that has scopes."""
        account = self.caller.account if self.caller else None
        return account is not None and account.bounds is not None

    @property
    def ends_at(self) -> int | None:
        """The time at which the caller's credential expires, in microseconds; None: never."""
        if self.caller is None or self.caller.policy is None:
            return None
        kind, _, secret_id = self.caller.principal.credential.partition(":")
        secret = self.caller.policy.find_secret(secret_id) if kind == "secret" else None
        return secret.expires_at if secret else None

    def is_user(self, name: str) -> bool:
        """Return whether the caller is this user and has no token with scopes."""
        account = self.caller.account if self.caller else None
        return account is not None and account.name == name and account.bounds is None

    def may(self, action: Action, name: RepositoryName) -> bool:
        """Return whether the caller may do `action` in the repository."""
        return self.caller is None or self.caller.may(action, name)

    def rights_in(self, name: RepositoryName) -> Rights:
        """Return the caller's rights in the repository."""
        return ALL_RIGHTS if self.caller is None else self.caller.rights_in(name)

    @property
    def visible(self) -> list[RepositoryPattern]:
        """The patterns of the repositories that the caller may see."""
        return [EVERYTHING] if self.caller is None else self.caller.visible

    def administers(self, pattern: RepositoryPattern) -> bool:
        """Return whether the caller may manage the grants of all repositories of the pattern."""
        if self.caller is None:
            return True
        policy = self.caller.policy
        return policy is not None and policy.administers(self.caller.account, pattern)

    @property
    def administered(self) -> list[RepositoryPattern]:
        """The patterns of the repositories that the caller administers."""
        if self.caller is None:
            return [EVERYTHING]
        policy = self.caller.policy
        return policy.list_administered(self.caller.account) if policy is not None else []
