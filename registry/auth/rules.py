"""What the settings say about signing in."""

from dataclasses import dataclass
from typing import Final

HOW_TO_HIDE: Final = (
    "set [http] tls_cert and tls_key; or, behind a proxy that has TLS, [http] external_url to the "
    "https:// address that clients use, or trusted_proxies to the address of the proxy, which then "
    "has to send X-Forwarded-Proto and X-Forwarded-Host"
)
"""What to do where passwords can be read on their way; each of it silences the warning."""

SHORTEST_PASSWORD: Final = 8
LONGEST_PASSWORD: Final = 1024


@dataclass(frozen=True, slots=True)
class AuthRules:
    """`token_life` in seconds; `sign_ins` counts failures at an account in five minutes.

    `open` and `closed`: nobody, or everybody, must sign in, whatever users there are. `own`:
    the users of this registry may. `issuer` makes the tokens, `service` is whom they are for.
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
