"""A compact form of many scopes: a digest for each repository in place of its name.

A token with 500 repository names would be too long for the `Authorization` header that proxies
accept. A digest has 48 bits and depends on the ID of its token, so that nobody can search for a
name that collides with another. A token is an upper bound, and the grants are checked as well: a
name that collides by chance gives its bearer no more than the grants do.
"""

import base64
import binascii
import hashlib
from typing import Any, Self

from msgspec import Struct

from registry.auth.policy.actions import Action
from registry.auth.policy.scopes import Scopes, parse_actions, write_actions
from registry.errors import TokenInvalidError
from registry.oci.names import RepositoryName

_SIZE = 6
"""The size of a digest, in bytes."""


class PackedScopes(Struct, frozen=True):
    """The scopes of one token. Each group of actions has the sorted digests of its repositories."""

    token_id: str
    groups: tuple[tuple[frozenset[Action], bytes], ...]
    catalog: bool = False

    @classmethod
    def pack(cls, scopes: Scopes, token_id: str) -> Self:
        """Pack the scopes of the token with this ID."""
        digests: dict[frozenset[Action], list[bytes]] = {}
        for name, actions in scopes.repositories.items():
            digests.setdefault(actions, []).append(_digest(name, token_id))
        groups = tuple((actions, b"".join(sorted(found))) for actions, found in digests.items())
        return cls(token_id, groups, scopes.catalog)

    @classmethod
    def from_claim(cls, claim: Any, token_id: str, *, catalog: bool) -> Self:
        """Parse the claim that `to_claim` returned; raise TokenInvalidError."""
        if not isinstance(claim, dict):
            raise TokenInvalidError("the token's packed scopes cannot be parsed")
        try:
            groups = tuple(
                (parse_actions(actions.split(",")), base64.b64decode(text, b"-_", validate=True))
                for actions, text in claim.items()
            )
        except (TypeError, ValueError, binascii.Error):
            raise TokenInvalidError("the token's packed scopes cannot be parsed") from None
        if any(len(digests) % _SIZE for _, digests in groups):
            raise TokenInvalidError("the token's packed scopes cannot be parsed")
        return cls(token_id, groups, catalog)

    def to_claim(self) -> dict[str, str]:
        """Return the digests in base64url by actions, such as `pull,push`."""
        return {
            ",".join(write_actions(actions)): base64.urlsafe_b64encode(digests).decode()
            for actions, digests in self.groups
        }

    def actions_in(self, name: RepositoryName) -> frozenset[Action]:
        """Return the actions that the token allows in a repository."""
        digest = _digest(name, self.token_id)
        return frozenset().union(
            *(actions for actions, digests in self.groups if _contains(digests, digest))
        )

    @property
    def names(self) -> None:
        """None: the repositories cannot be listed."""
        return None


def _digest(name: RepositoryName, token_id: str) -> bytes:
    key = token_id.encode()
    return hashlib.blake2b(str(name).encode(), digest_size=_SIZE, key=key).digest()


def _contains(digests: bytes, wanted: bytes) -> bool:
    """Search by bisection: the digests stay in one bytes object, which takes the least memory."""
    low, high = 0, len(digests) // _SIZE
    while low < high:
        middle = (low + high) // 2
        found = digests[middle * _SIZE : (middle + 1) * _SIZE]
        if found == wanted:
            return True
        low, high = (middle + 1, high) if found < wanted else (low, middle)
    return False
