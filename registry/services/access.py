"""Services for authentication, authorization and quotas, as the front ends see them."""

from dataclasses import dataclass

from registry.auth.authenticator import Authenticator
from registry.auth.policies import Policies
from registry.services.access_tokens import AccessTokens
from registry.services.audit import Audit
from registry.services.grants import Grants
from registry.services.groups import Groups
from registry.services.keys import Keys
from registry.services.quotas import Quotas
from registry.services.robots import Robots
from registry.services.tidying import Tidying
from registry.services.tokens import Tokens
from registry.services.users import Users


@dataclass(frozen=True, slots=True)
class Access:
    """All services of authentication and access administration over one database."""

    authenticator: Authenticator
    policies: Policies
    tokens: Tokens
    users: Users
    groups: Groups
    robots: Robots
    access_tokens: AccessTokens
    grants: Grants
    quotas: Quotas
    keys: Keys
    audit: Audit
    tidying: Tidying
