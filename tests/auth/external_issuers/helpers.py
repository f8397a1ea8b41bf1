"""Helpers of the tests of this folder."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.auth.keys.jose import jwk_of
from registry.auth.tokens.external_issuers import ExternalIssuer
from registry.errors import TokenInvalidError
from tests.support.forged_tokens import PrivateKey, assemble, good_claims, signer

ISSUER = "gitlab-issuer"
AUDIENCE = "container_registry"
FIRST: PrivateKey = Ed25519PrivateKey.generate()
SECOND: PrivateKey = generate_private_key(SECP256R1())
REFRESH = 0.05
Told = Callable[[], list[logging.LogRecord]]


def jwks(*keys: PrivateKey) -> dict[str, Any]:
    return {"keys": [jwk_of(key.public_key()) for key in keys]}


def sign(key: PrivateKey, claims: dict[str, Any] | None = None) -> str:
    jwk = jwk_of(key.public_key())
    header = {"typ": "JWT", "alg": jwk["alg"], "kid": jwk["kid"]}
    return assemble(header, claims or good_claims(ISSUER, AUDIENCE), signer(key))


def accepts(issuer: ExternalIssuer, token: str) -> bool:
    try:
        issuer.verify(token)
    except TokenInvalidError:
        return False
    return True


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(issuer: ExternalIssuer) -> AsyncIterator[ExternalIssuer]:
    await issuer.start()
    try:
        yield issuer
    finally:
        await issuer.stop()
