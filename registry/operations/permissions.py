"""Permissions in repositories.

A caller with `admin` on a pattern administers the repositories of the pattern.
"""

from registry.auth.policy.actions import Action
from registry.auth.policy.patterns import RepositoryPattern
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.operation import Permission

PATTERN_ADMINS = Permission(
    "admins, and callers with admin on all repositories of the pattern",
    lambda context, request: context.administers(RepositoryPattern.parse(request.pattern)),
    lambda request: f"admin on {request.pattern}",
)
REPOSITORY_ADMINS = Permission(
    "admins, and callers with admin on the repository",
    lambda context, request: administers(context, request.repository),
    lambda request: f"admin on {request.repository}",
)
SOME_ADMINS = Permission(
    "admins, and callers with admin on the repositories concerned; not tokens with scopes",
    lambda context, _: not context.is_bounded,
    lambda _: "admin on the repositories concerned",
)
SOME_REPOSITORY_ADMINS = Permission(
    "admins, and callers with admin on at least one repository",
    lambda context, _: bool(context.administered),
    lambda _: "admin on at least one repository",
)
PULLERS = Permission(
    "callers with pull on the repository",
    lambda context, request: context.may(Action.PULL, RepositoryName.parse(request.repository)),
    lambda request: f"pull on {request.repository}",
)


def administers(context: OperationContext, repository: str) -> bool:
    """Return whether the caller may administer one repository; raise NameInvalidError."""
    return context.administers(RepositoryPattern.parse(str(RepositoryName.parse(repository))))
