"""Secrets that the registry generates, as `moorage_ID_SECRET`. Only a keyed hash is stored.

A secret has 256 random bits and cannot be guessed, so a fast hash is enough. The key makes a stolen
table useless. The ID finds the row, and the prefix lets scanners find leaked secrets.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_FORM = re.compile(r"moorage_(?P<id>[0-9a-f]{16})_(?P<value>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret in plain text. Its `repr` leaves out the value."""

    id: str
    value: str = field(repr=False)

    def reveal(self) -> str:
        """Return the text of the secret, to be shown once."""
        return f"moorage_{self.id}_{self.value}"


def new_secret() -> Secret:
    return Secret(secrets.token_hex(8), secrets.token_hex(32))


def find_secret(text: str) -> Secret | None:
    """Parse a secret; return None for any other text."""
    match = _FORM.fullmatch(text)
    return Secret(match["id"], match["value"]) if match else None


class Hasher:
    """Computes keyed hashes of secrets, and of names that must not be stored in plain text."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, raw, hashlib.sha256).hexdigest()

    def matches(self, secret: Secret, hash_: str) -> bool:
        """Return whether `hash_` is the hash of the secret, in constant time."""
        return hmac.compare_digest(self.hash(secret.value), hash_)
