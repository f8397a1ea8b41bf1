"""Settings of authentication. Every command imports this module, so it imports nothing slow."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from registry.auth.oidc_settings import Oidc
from registry.units import (
    Duration,
    Flag,
    Secret,
    ServiceName,
    Text,
    Timeout,
    TokenLifetime,
    Url,
    choice,
)

AuthMode = Literal["", "none", "token"]
KeyPlace = Literal["auto", "file", "database"]

TLS_REMEDY: Final = (
    "set http.tls_cert and http.tls_key. Behind a proxy that terminates TLS, set http.external_url "
    "to the https:// URL that clients use, or http.trusted_proxies to the address of the proxy, "
    "which must then send X-Forwarded-Proto and X-Forwarded-Host"
)
"""How to protect passwords in transit. Each of these settings also stops the warning."""

SHORTEST_PASSWORD: Final = 8
LONGEST_PASSWORD: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """`[auth]`: authentication and authorization."""

    mode: Annotated[
        AuthMode,
        choice(AuthMode),
        "`token`: every client signs in. `none`: no client signs in. "
        "Empty: clients sign in once there is a user.",
    ] = ""
    service: Annotated[ServiceName, "Issuer and audience of the tokens of this registry."] = (
        "moorage"
    )
    token_lifetime: Annotated[TokenLifetime, "How long a token of this registry is valid."] = 300.0
    refresh_tokens: Annotated[
        Flag, "Give clients a refresh token at login. If false, they store the password."
    ] = True
    personal_namespaces: Annotated[
        Flag, "Give each user all rights to the repositories below the user's own name."
    ] = False
    key_store: Annotated[
        KeyPlace,
        choice(KeyPlace),
        "Where private keys are: `file`, in the data directory; `database`, shared by replicas; "
        "`auto`: in files with an embedded database, otherwise in the database.",
    ] = "auto"
    secret: Annotated[
        Secret, "Secret that encrypts private keys in the database, at least 32 characters."
    ] = field(default="", repr=False)
    admin_user: Annotated[Text, "Name of the admin that `auth.admin_password` adds."] = "admin"
    admin_password: Annotated[
        Secret, "Password of an admin that `serve` adds if there is no user. Empty: none is added."
    ] = field(default="", repr=False)
    audit_retention: Annotated[Duration, "How long events stay in the audit log."] = 365 * 86_400.0
    issuer: Annotated[Text, "Exact `iss` of tokens of the external issuer."] = ""
    audience: Annotated[
        Text, "Required `aud` of those tokens, and the service that clients name."
    ] = ""
    realm: Annotated[Url, "URL where clients get those tokens. Empty: at this registry."] = ""
    jwks_url: Annotated[
        Url, "URL of the keys (JWKS) of the external issuer. Empty: no such issuer."
    ] = ""
    jwks_file: Annotated[
        Text, "File with these keys, instead of the URL, relative to the data directory."
    ] = ""
    local_users: Annotated[
        Flag, "Let users and robots of this registry sign in, not only the external issuer's."
    ] = True
    allow_private_addresses: Annotated[
        Flag, "Allow private addresses for fetching keys, and http to them."
    ] = False
    ca_file: Annotated[
        Text,
        "PEM file with additional certificate authorities for fetching keys, relative to the data "
        "directory.",
    ] = ""
    jwks_refresh_interval: Annotated[
        Timeout, "How often the keys of external issuers are fetched."
    ] = 900.0
    oidc: Annotated[Oidc, "Issuers whose ID tokens are exchanged for tokens of robots."] = ()

    @property
    def is_open(self) -> bool:
        """Whether nobody needs to sign in, even if there are users."""
        return self.mode == "none"

    @property
    def has_external_issuer(self) -> bool:
        """Whether tokens of an external issuer are accepted."""
        return bool(self.jwks_url or self.jwks_file)

    @property
    def requires_sign_in(self) -> bool:
        """Whether everybody needs to sign in, even if there are no users."""
        return self.mode == "token" or self.has_external_issuer

    @property
    def challenge_service(self) -> str:
        """The service that challenges name: that of the token server at `realm`, if it is set."""
        return self.audience if self.realm else self.service
