"""Authentication and access administration."""

from registry.app.core import Core
from registry.app.other_servers import compose_issuers
from registry.auth.authenticator import Authenticator
from registry.auth.keys.keyring import Keyring
from registry.services.access.access import AccessServices
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


def compose_access(core: Core, keyring: Keyring, quotas: Quotas) -> AccessServices:
    """Compose authentication and access administration."""
    settings, database, policies = core.settings, core.database, core.policies
    issuer, oidc = compose_issuers(settings)
    authenticator = Authenticator(
        database,
        policies,
        keyring,
        settings.auth,
        issuer=issuer,
        oidc=oidc,
        failed_sign_ins=settings.limits.failed_sign_ins,
    )
    keys = Keys(database, keyring)
    return AccessServices(
        authenticator=authenticator,
        policies=policies,
        tokens=Tokens(database, authenticator, keyring),
        users=Users(database, keyring, authenticator.passwords),
        groups=Groups(database),
        robots=Robots(database, keyring),
        access_tokens=AccessTokens(database, keyring),
        grants=Grants(database, policies),
        quotas=quotas,
        keys=keys,
        audit=Audit(database),
        access_cleanup=AccessCleanup(database, keys),
    )
