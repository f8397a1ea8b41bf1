"""The settings of authentication."""

from dataclasses import dataclass
from typing import Final

TLS_REMEDY: Final = (
    "set [http] tls_cert and tls_key; or, behind a proxy that terminates TLS, set [http] "
    "external_url to the https:// address that clients use, or trusted_proxies to the "
    "address of the proxy, which must send X-Forwarded-Proto and X-Forwarded-Host"
)
"""How to protect passwords in transit. Each of these settings also stops the warning."""

SHORTEST_PASSWORD: Final = 8
LONGEST_PASSWORD: Final = 1024


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """The settings of authentication.

    `open` means that nobody needs to sign in and `closed` that everybody does, whatever users
    exist. `own` is whether the users of this registry may sign in. `service` is the audience of its
    tokens and `issuer` their issuer. `token_life` is in seconds. `sign_ins` is the limit of failed
    sign-ins at an account within five minutes.
    """

    open: bool = False
    closed: bool = False
    own: bool = True
    service: str = "moorage"
    issuer: str = "moorage"
    token_life: float = 300.0
    personal_namespaces: bool = False
    sign_ins: int = 30
    refresh_tokens: bool = True
