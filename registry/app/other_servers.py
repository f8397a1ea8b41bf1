"""Clients of other servers: the upstream registry and external token issuers.

Most registries call no other server. So a function imports its client, which loads httpx and the
cryptography (15 MiB), only if the settings name a server.
"""

from typing import TYPE_CHECKING

from registry.config import Settings

if TYPE_CHECKING:
    from registry.auth.tokens.external_issuers import ExternalIssuer, KeySource, OidcIssuer
    from registry.client.upstream import Upstream
    from registry.client.web import Web


def find_upstream(settings: Settings) -> "Upstream | None":
    """Return the registry that damaged blobs are fetched from, if the settings name one.

    Raises ConfigError if the settings cannot be used.
    """
    section = settings.upstream
    if not section.url:
        return None
    from registry.client import credentials  # noqa: PLC0415 - see above
    from registry.client.upstream import Upstream  # noqa: PLC0415

    source = None
    if section.credential_helper:
        server = credentials.find_helper_key(section.url)
        source = credentials.from_helper(section.credential_helper, server)
    elif section.username:
        source = credentials.from_settings(section.username, section.password)
    return Upstream(
        section.url,
        credentials=source,
        token_origins=section.token_origins,
        allow_private=section.allow_private_addresses,
        ca_file=settings.data / section.ca_file if section.ca_file else None,
        proxy=section.proxy,
    )


def _open_web(settings: Settings) -> "Web":
    """Return the HTTP client for the documents of external issuers."""
    from registry.client.web import Web  # noqa: PLC0415 - see above

    auth = settings.auth
    ca_file = settings.data / auth.ca_file if auth.ca_file else None
    return Web(allow_private=auth.allow_private_addresses, ca_file=ca_file)


def compose_issuers(settings: Settings) -> tuple["ExternalIssuer | None", list["OidcIssuer"]]:
    """Return the external token issuers in the settings, not yet started."""
    auth, data = settings.auth, settings.data
    if not (auth.issuer or auth.oidc):
        return None, []
    from registry.auth.tokens.external_issuers import (  # noqa: PLC0415 - see above
        ExternalIssuer,
        OidcIssuer,
        key_source,
    )

    web = _open_web(settings)

    def source(issuer: str, url: str, file: str) -> "KeySource":
        return key_source(web, issuer=issuer, url=url, file=data / file if file else None)

    oidc = [
        OidcIssuer(
            each.issuer,
            each.audience,
            source(each.issuer, each.jwks_url, each.jwks_file),
            each.rules,
            refresh=auth.jwks_refresh_interval,
        )
        for each in auth.oidc
    ]
    if not auth.issuer:
        return None, oidc
    keys = source(auth.issuer, auth.jwks_url, auth.jwks_file)
    return ExternalIssuer(
        auth.issuer, auth.audience, keys, refresh=auth.jwks_refresh_interval
    ), oidc
