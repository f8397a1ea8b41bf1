"""What the settings say about signing in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuthRules:
    """`token_life` in seconds; `sign_ins` counts failures of an address in five minutes.

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
