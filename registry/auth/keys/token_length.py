"""The maximum size of a token. Unlike `jose`, this module loads no cryptography."""

from registry.errors import TokenInvalidError

MAX_TOKEN = 8 << 10
"""The maximum size of a token, in bytes."""


def require_short(token: str) -> None:
    """Raise TokenInvalidError if the token is longer than `MAX_TOKEN`."""
    if len(token) > MAX_TOKEN:
        raise TokenInvalidError(
            f"the token has {len(token)} bytes, but at most {MAX_TOKEN} are allowed; the "
            "issuer must include fewer repositories and omit x5c"
        )
