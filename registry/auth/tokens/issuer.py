"""Access tokens: signed and short-lived. A token is an upper bound on the rights of its bearer.

Source: Distribution's token specification, JWT.
"""

import json
import uuid
from typing import Any

import jwt
from msgspec import Struct

from registry import clock
from registry.auth.keys.jose import VerificationKey, public_keys, verify
from registry.auth.keys.keyring import Keyring
from registry.auth.keys.token_length import MAX_TOKEN
from registry.auth.policy.packed_scopes import PackedScopes
from registry.auth.policy.policy import Policy
from registry.auth.policy.principals import ANONYMOUS, Principal
from registry.auth.policy.scopes import Scopes
from registry.auth.settings import AuthSettings
from registry.errors import ConfigError, TokenInvalidError, TooManyScopesError
from registry.metadata.access.signing_keys import KeyState

_TYPES = frozenset({"jwt"})
_SECOND = 1_000_000

LONGEST = 7 << 10
"""The maximum size of a token, in bytes.

Together with the header name, it fits the header lines of 8 KiB that proxies accept.
"""

SURE = 500
"""The number of repositories that fit a token, however long their names are."""

_PACKED = "access_digests"


class Issued(Struct, frozen=True):
    """An issued token. `life` is in seconds, `at` in microseconds."""

    token: str
    id: str
    scopes: Scopes
    life: int
    at: int


class TokenClaims(Struct, frozen=True):
    """The claims of a token of this registry.

    `since` is the policy revision at which the token was issued. `expires` is in seconds since the
    epoch.
    """

    principal: Principal
    scopes: Scopes | PackedScopes
    since: int
    expires: float
    kid: str


class TokenIssuer:
    """Issues and verifies the access tokens of this registry."""

    def __init__(self, keyring: Keyring, rules: AuthSettings) -> None:
        self._keyring = keyring
        self._rules = rules
        self._keys: tuple[int, dict[str, VerificationKey]] = (-1, {})

    async def issue(self, principal: Principal, scopes: Scopes, policy: Policy) -> Issued:
        """Issue a token for `scopes`, all of which the principal must have.

        If the token would be too long, it contains digests in place of repository names. Other
        servers cannot read those. Raises ConfigError, TooManyScopesError.
        """
        key = policy.active_key
        if key is None:
            raise ConfigError("no key to sign tokens with; run: moorage key rotate")
        now = clock.now_us()
        life = round(self._rules.token_lifetime)
        token_id = uuid.uuid4().hex
        claims = {
            "iss": self._rules.service,
            "sub": "" if principal == ANONYMOUS else principal.name,
            "aud": self._rules.service,
            "iat": now // _SECOND,
            "nbf": now // _SECOND,
            "exp": now // _SECOND + life,
            "jti": token_id,
            "access": scopes.to_claims(),
            "credential": principal.credential,
            "policy": policy.revision,
        }
        private = await self._keyring.get_private(key.kid)
        token = jwt.encode(claims, private, "EdDSA", headers={"kid": key.kid})
        if len(token) > LONGEST:
            claims["access"] = Scopes({}, scopes.catalog).to_claims()
            claims[_PACKED] = PackedScopes.pack(scopes, token_id).to_claim()
            token = jwt.encode(claims, private, "EdDSA", headers={"kid": key.kid})
        if len(token) > LONGEST:
            count = len(scopes.repositories)
            raise TooManyScopesError(
                f"a token for {count} repositories would exceed {LONGEST} bytes; request at "
                f"most {SURE} at a time",
                {"repositories": count, "limit": SURE},
            )
        return Issued(token, token_id, scopes, life, now)

    def read(self, token: str, policy: Policy) -> TokenClaims:
        """Return the claims of a token; raise TokenInvalidError unless a trusted key signed it."""
        claims = verify(
            token,
            self._get_keys(policy),
            issuer=self._rules.service,
            audience=self._rules.service,
            types=_TYPES,
        )
        credential, since = claims.get("credential"), claims.get("policy")
        if not isinstance(credential, str) or not isinstance(since, int):
            raise TokenInvalidError("the token is not an access token of this registry")
        return TokenClaims(
            Principal(claims["sub"] or ANONYMOUS.name, credential),
            _read_scopes(claims),
            since,
            float(claims["exp"]),
            jwt.get_unverified_header(token)["kid"],
        )

    def is_trusted(self, kid: str, policy: Policy) -> bool:
        """Return whether tokens signed with this key are accepted now."""
        row = policy.keys.get(kid)
        return row is not None and row.state is not KeyState.REVOKED

    def list_public(self, policy: Policy) -> list[dict[str, Any]]:
        """Return the JWKS entries of all keys that are not revoked."""
        return [
            json.loads(row.jwk) for kid, row in policy.keys.items() if self.is_trusted(kid, policy)
        ]

    def _get_keys(self, policy: Policy) -> dict[str, VerificationKey]:
        revision, keys = self._keys
        if revision != policy.revision:
            keys = public_keys({"keys": self.list_public(policy)})
            self._keys = policy.revision, keys
        return keys


def read_issuer(token: str) -> str | None:
    """Return the `iss` claim of a token without verifying the token."""
    if len(token) > MAX_TOKEN:
        return None
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    return issuer if isinstance(issuer, str) else None


def _read_scopes(claims: dict[str, Any]) -> Scopes | PackedScopes:
    scopes = Scopes.from_claims(claims.get("access"))
    if _PACKED not in claims:
        return scopes
    return PackedScopes.from_claim(claims[_PACKED], str(claims.get("jti")), catalog=scopes.catalog)
