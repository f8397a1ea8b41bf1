"""Helpers of the tests of this folder."""

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import strategies as st

from registry.auth.keys import jose
from registry.auth.keys.jose import VerificationKey, jwk_of, public_keys
from tests.support.forged_tokens import (
    PrivateKey,
    assemble,
    good_claims,
    signer,
)

ISSUER = "https://registry.example.org"
AUDIENCE = "registry.example.org"
JWT = frozenset({"jwt"})
ED25519 = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def key_of(private: PrivateKey) -> VerificationKey:
    [key] = public_keys({"keys": [jwk_of(private.public_key())]}).values()
    return key


PRIVATE: tuple[PrivateKey, ...] = (ED25519, P256)
KEYS = {key.kid: key for key in map(key_of, PRIVATE)}


def make(private: PrivateKey, changes: Mapping[str, Any] | None = None) -> str:
    key = key_of(private)
    header = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
    claims = {**good_claims(ISSUER, AUDIENCE), **(changes or {})}
    return assemble(header, {k: v for k, v in claims.items() if v is not ...}, signer(private))


def verify(
    token: str, keys: Mapping[str, VerificationKey] = KEYS, **options: Any
) -> dict[str, Any]:
    return jose.verify(
        token, keys, **{"issuer": ISSUER, "audience": AUDIENCE, "types": JWT, **options}
    )


SIGNERS = pytest.mark.parametrize("private", PRIVATE, ids=["EdDSA", "ES256"])


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
