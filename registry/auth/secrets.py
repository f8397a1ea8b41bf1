"""Secrets that the registry makes: `moorage_ID_SECRET`, of which it keeps a keyed hash.

256 random bits cannot be guessed, so a fast hash is enough; the key makes a stolen table useless.
The ID finds the row, and the prefix is for scanners that look for leaked secrets.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_FORM = re.compile(r"moorage_(?P<id>[0-9a-f]{16})_(?P<value>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, as its owner has it. It does not print."""

    id: str
    value: str = field(repr=False)

    def reveal(self) -> str:
        """The text, shown once."""
        return f"moorage_{self.id}_{self.value}"


def new_secret() -> Secret:
    return Secret(secrets.token_hex(8), secrets.token_hex(32))


def find_secret(text: str) -> Secret | None:
    """Read a secret; None for anything else."""
    match = _FORM.fullmatch(text)
    return Secret(match["id"], match["value"]) if match else None


class Hasher:
    """Keyed hashes of secrets, and of names that must not be readable."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, raw, hashlib.sha256).hexdigest()

    def matches(self, secret: Secret, hash_: str) -> bool:
        """Whether `hash_` is the secret's, told in the same time for yes and no."""
        return hmac.compare_digest(self.hash(secret.value), hash_)
