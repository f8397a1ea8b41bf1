"""Verification of signed tokens and the public keys for it. This module signs nothing.

Sources: RFC 7515 (JWS), 7517 (JWK), 7519 (JWT), 7638 (thumbprint), 8725 (what to refuse).

PyJWT verifies the signature only. This module checks everything else, because PyJWT parses JSON and
claims more leniently than an access decision allows.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, NoReturn

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec import Struct

from registry import clock
from registry.auth.keys.token_length import require_short
from registry.errors import TokenInvalidError

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

NAMELESS = ""
"""The `kid` that stands for a token without one."""

MAX_KEYS = 100
"""The number of keys that are read from a JWKS document. Further keys are ignored."""

LEEWAY = 60.0
"""The tolerated difference between clocks, in seconds."""

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_OWN_HEADER: Final = frozenset({"alg", "kid", "typ"})
# These headers change what would be verified. Others that are not read, such as `x5c`, do no harm
# in the token of an external issuer.
_NEVER: Final = frozenset({"b64", "crit", "jku", "jwk", "x5u", "zip"})
_LATEST: Final = 253_402_300_799  # the end of the year 9999, so that every time fits a timestamp
_LONGEST_NAME: Final = 255

# The members that define a key of each type. No others are read, so a private member never is.
_MEMBERS: Final[Mapping[object, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}
# The algorithms of a type and curve. The first is the default if the key has no `alg`.
_ALGORITHMS: Final[Mapping[object, tuple[str, ...]]] = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256"),
}
_MEMBER = re.compile(r"[A-Za-z0-9_-]{1,1366}")  # an RSA modulus of 8192 bits
_RSA_BITS: Final = 2048

# PyJWT is set up without HMAC and `none`, so no key and no header can select them.
_SIGNATURES = jwt.PyJWS(
    algorithms=[name for names in _ALGORITHMS.values() for name in names],
    options={"verify_signature": True, "enforce_minimum_key_length": True},
)


class VerificationKey(Struct, frozen=True):
    """A public key with its key ID and the only algorithm that it is used with."""

    kid: str
    algorithm: str
    key: PublicKey


def verify(
    token: str,
    keys: Mapping[str, VerificationKey],
    *,
    issuer: str,
    audience: str,
    types: frozenset[str],
    leeway: float = LEEWAY,
    external: bool = False,
) -> dict[str, Any]:
    """Return the claims of a token from `issuer` for `audience` that is valid now.

    `types` holds the accepted values of `typ` in lower case. The empty string accepts a token
    without `typ`. `leeway` is in seconds. An `external` (external) issuer may add headers and omit
    `nbf` and `sub`.

    Raises TokenInvalidError for any other input.
    """
    require_short(token)
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise TokenInvalidError("the token is not a signed token (JWS)")
    header = _read(_decode(match[1]), "header")
    key = _find_key(header, keys, types=types, external=external)
    try:
        payload: bytes = _SIGNATURES.decode(token, key.key, algorithms=[key.algorithm])
    except (jwt.PyJWTError, ValueError, RecursionError):
        # RecursionError: PyJWT parses the header again, deeper in the stack than `_read` did.
        raise TokenInvalidError("the token's signature is invalid") from None
    claims = _read(payload, "claims")
    _check_names(claims, issuer, audience, external=external)
    require_current(claims, leeway=leeway, external=external)
    return claims


def require_current(
    claims: Mapping[str, Any], *, leeway: float = LEEWAY, external: bool = False
) -> None:
    """Raise TokenInvalidError unless the claims are valid now; arguments as in `verify`."""
    now = clock.now_us() / 1_000_000
    if _time(claims, "exp") + leeway <= now:
        raise TokenInvalidError("the token has expired")
    begins = [_time(claims, "iat")]
    if "nbf" in claims or not external:
        begins.append(_time(claims, "nbf"))
    if max(begins) - leeway > now:
        raise TokenInvalidError("the token is not valid yet")


def public_keys(jwks: object) -> dict[str, VerificationKey]:
    """Return the keys of a JWKS document that can verify tokens, by `kid`.

    Symmetric keys are always left out, and so are keys of other uses and types. Of two keys with
    the same `kid`, the first is used. A key without a `kid` gets its thumbprint as one. The result
    is empty for input that is not a JWKS document.
    """
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    keys: dict[str, VerificationKey] = {}
    for entry in islice(entries, MAX_KEYS) if isinstance(entries, list) else ():
        key = _public_key(entry) if isinstance(entry, dict) else None
        if key is not None:
            keys.setdefault(key.kid, key)
    return keys


def add_aliases(keys: Mapping[str, VerificationKey]) -> dict[str, VerificationKey]:
    """Return the keys, also under the key IDs that issuers without a JWKS document use.

    The aliases are the RFC 7638 thumbprint, the key ID of libtrust and, if there is only one key,
    no key ID. docker_auth (`getRFC7638Thumbprint`) hashes the generator of an EC key's curve
    instead of the key: this alias is added only if a single key has it. A `kid` of the document
    takes precedence over an alias.
    """
    aliases: dict[str, VerificationKey] = {}
    of_curve: dict[str, list[VerificationKey]] = {}
    for key in keys.values():
        aliases.setdefault(_thumbprint_of(key.key), key)
        aliases.setdefault(_libtrust_id(key.key), key)
        if isinstance(key.key, EllipticCurvePublicKey):
            generator = ec.derive_private_key(1, key.key.curve).public_key()
            of_curve.setdefault(_thumbprint_of(generator), []).append(key)
    aliases |= {name: found[0] for name, found in of_curve.items() if len(found) == 1}
    if len(keys) == 1:
        aliases[NAMELESS] = next(iter(keys.values()))
    return {**aliases, **keys}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 thumbprint of an EC, OKP or RSA key, with SHA-256, in base64url."""
    members = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def jwk_of(public_key: Ed25519PublicKey | EllipticCurvePublicKey) -> dict[str, str]:
    """Return the JWK of a key of this registry, Ed25519 or P-256, with its thumbprint as `kid`."""
    if isinstance(public_key, Ed25519PublicKey):
        jwk = OKPAlgorithm.to_jwk(public_key, as_dict=True)
    else:
        jwk = ECAlgorithm.to_jwk(public_key, as_dict=True)
    [algorithm] = _ALGORITHMS[jwk["kty"], jwk["crv"]]
    return {**jwk, "kid": thumbprint(jwk), "alg": algorithm, "use": "sig"}


def _find_key(
    header: dict[str, Any],
    keys: Mapping[str, VerificationKey],
    *,
    types: frozenset[str],
    external: bool,
) -> VerificationKey:
    if header.keys() & _NEVER or not (external or header.keys() <= _OWN_HEADER):
        raise TokenInvalidError("the token's header contains a parameter that is not accepted")
    kind = header.get("typ", "")
    if not isinstance(kind, str) or kind.lower() not in types:
        raise TokenInvalidError("the token has the wrong type (typ)")
    kid = header.get("kid", NAMELESS)
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise TokenInvalidError(
            "the token does not name its key (kid), but there is more than one"
            if kid == NAMELESS and keys and external
            else "the token is signed by an unknown key"
        )
    if header.get("alg") != key.algorithm:
        raise TokenInvalidError("the token's algorithm does not match its key")
    return key


def _check_names(claims: dict[str, Any], issuer: str, audience: str, *, external: bool) -> None:
    if claims.get("iss") != issuer:
        raise TokenInvalidError("the token is from another issuer")
    named = claims.get("aud")
    audiences = [named] if isinstance(named, str) else named
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise TokenInvalidError("the token's audience is not a string or a list of strings")
    if audience not in audiences:
        raise TokenInvalidError("the token is for another audience")
    subject = claims.get("sub", "" if external else None)
    # The subject is stored and logged, so it has no control characters and no lone surrogates.
    if not (isinstance(subject, str) and len(subject) <= _LONGEST_NAME and subject.isprintable()):
        raise TokenInvalidError("the token's subject is not a valid name")


def _time(claims: Mapping[str, Any], name: str) -> float:
    """Return the value of a time claim, in seconds since the epoch."""
    value: Any = claims.get(name)
    # `type` rather than `isinstance`: True is an int in Python. The range check also fails for NaN.
    if type(value) not in {int, float} or not 0 <= value <= _LATEST:
        raise TokenInvalidError(f"the token has no valid time in {name}")
    return float(value)


def _public_key(entry: dict[str, Any]) -> VerificationKey | None:
    kty = entry.get("kty")
    members = _MEMBERS.get(kty) if isinstance(kty, str) else None
    if members is None or entry.get("use", "sig") != "sig":
        return None
    jwk = {name: entry.get(name) for name in members}
    if not all(isinstance(value, str) and _MEMBER.fullmatch(value) for value in jwk.values()):
        return None
    algorithms = _ALGORITHMS.get((kty, jwk.get("crv")), ())
    algorithm = entry.get("alg", next(iter(algorithms), None))
    kid = entry.get("kid", thumbprint(jwk))
    if algorithm not in algorithms or not isinstance(kid, str):
        return None
    try:
        key: PublicKey = jwt.PyJWK(jwk, algorithm).key
    except jwt.PyJWTError:  # for example a point that is not on the curve
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS:
        return None
    return VerificationKey(kid, algorithm, key)


def _thumbprint_of(key: PublicKey) -> str:
    if isinstance(key, RSAPublicKey):
        return thumbprint(RSAAlgorithm.to_jwk(key, as_dict=True))
    return thumbprint(jwk_of(key))


def _libtrust_id(key: PublicKey) -> str:
    """Return the key ID of Docker's libtrust: base32 of the first 240 bits of a SHA-256."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def _decode(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise TokenInvalidError("the token is not base64url") from None


def _read(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object without duplicate keys; raise TokenInvalidError for anything else."""
    try:
        value: object = _JSON.decode(raw.decode())
    except (ValueError, RecursionError):
        raise TokenInvalidError(f"the token's {what} cannot be parsed") from None
    if not isinstance(value, dict):
        raise TokenInvalidError(f"the token's {what} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
