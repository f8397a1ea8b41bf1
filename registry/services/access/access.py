"""Services for authentication, authorization and quotas, as the front ends see them."""

from msgspec import Struct

from registry.auth.authenticator import Authenticator
from registry.auth.policy.policy_cache import PolicyCache
from registry.services.access.access_cleanup import AccessCleanup
from registry.services.access.access_tokens import AccessTokens
from registry.services.access.audit import Audit
from registry.services.access.grants import Grants
from registry.services.access.groups import Groups
from registry.services.access.keys import Keys
from registry.services.access.robots import Robots
from registry.services.access.tokens import Tokens
from registry.services.access.users import Users
from registry.services.quotas.quotas import Quotas


class AccessServices(Struct, frozen=True):
    """All services of authentication and access administration over one database."""

    authenticator: Authenticator
    policies: PolicyCache
    tokens: Tokens
    users: Users
    groups: Groups
    robots: Robots
    access_tokens: AccessTokens
    grants: Grants
    quotas: Quotas
    keys: Keys
    audit: Audit
    access_cleanup: AccessCleanup
