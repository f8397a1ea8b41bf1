"""Many scopes in a short token: a digest for each repository in place of its name.

A token with 500 repository names would be too long for the `Authorization` header that proxies let
pass. A digest has 48 bits and depends on the id of its token, so that nobody can look for a name
that has the digest of another. A token is an upper bound of grants, which are asked as well: a name
that had the digest of another by chance would let its bearer do no more than the grants do.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any, Self

from registry.auth.actions import Action
from registry.auth.scopes import Scopes, parse_actions, write_actions
from registry.errors import TokenInvalidError
from registry.oci.names import RepositoryName

_SIZE = 6
"""Bytes of a digest."""


@dataclass(frozen=True, slots=True)
class PackedScopes:
    """The scopes of one token. Each group of actions has the sorted digests of its repositories."""

    token_id: str
    groups: tuple[tuple[frozenset[Action], bytes], ...]
    catalog: bool = False

    @classmethod
    def pack(cls, scopes: Scopes, token_id: str) -> Self:
        """Pack the scopes of the token with that id."""
        digests: dict[frozenset[Action], list[bytes]] = {}
        for name, actions in scopes.repositories.items():
            digests.setdefault(actions, []).append(_digest(name, token_id))
        groups = tuple((actions, b"".join(sorted(found))) for actions, found in digests.items())
        return cls(token_id, groups, scopes.catalog)

    @classmethod
    def from_claim(cls, claim: Any, token_id: str, *, catalog: bool) -> Self:
        """Read the claim that `to_claim` made; TokenInvalidError."""
        if not isinstance(claim, dict):
            raise TokenInvalidError("the token's packed scopes cannot be read")
        try:
            groups = tuple(
                (parse_actions(actions.split(",")), base64.b64decode(text, b"-_", validate=True))
                for actions, text in claim.items()
            )
        except (TypeError, ValueError, binascii.Error):
            raise TokenInvalidError("the token's packed scopes cannot be read") from None
        if any(len(digests) % _SIZE for _, digests in groups):
            raise TokenInvalidError("the token's packed scopes cannot be read")
        return cls(token_id, groups, catalog)

    def to_claim(self) -> dict[str, str]:
        """Return the digests in base64url by actions, as in `pull,push`."""
        return {
            ",".join(write_actions(actions)): base64.urlsafe_b64encode(digests).decode()
            for actions, digests in self.groups
        }

    def actions_in(self, name: RepositoryName) -> frozenset[Action]:
        """Return the actions that the token lets through in a repository."""
        digest = _digest(name, self.token_id)
        return frozenset().union(
            *(actions for actions, digests in self.groups if _contains(digests, digest))
        )

    @property
    def names(self) -> None:
        """The repositories cannot be listed."""
        return None


def _digest(name: RepositoryName, token_id: str) -> bytes:
    key = token_id.encode()
    return hashlib.blake2b(str(name).encode(), digest_size=_SIZE, key=key).digest()


def _contains(digests: bytes, wanted: bytes) -> bool:
    """Search in halves: the digests stay in one text of bytes, which takes the least memory."""
    low, high = 0, len(digests) // _SIZE
    while low < high:
        middle = (low + high) // 2
        found = digests[middle * _SIZE : (middle + 1) * _SIZE]
        if found == wanted:
            return True
        low, high = (middle + 1, high) if found < wanted else (low, middle)
    return False
