"""Tokens that no server may accept, forged with and without the private key."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry.auth.keys.jose import jwk_of
from tests.support.servers.certificates import Authority

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
Json = dict[str, Any]
Forgery = tuple[str, str]


def encode(raw: bytes) -> str:
    """Encode bytes as base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def assemble(header: Json | bytes, claims: Json | bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a token with any header and claims, which may be bytes that are not JSON."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)
    ]
    signed = ".".join(encode(part) for part in parts)
    return f"{signed}.{encode(sign(signed.encode()))}"


def signer(key: PrivateKey) -> Callable[[bytes], bytes]:
    """Return a function that signs with `key`, using EdDSA or ES256."""
    name = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
    algorithm = jwt.get_algorithm_by_name(name)
    return lambda message: algorithm.sign(message, key)


def good_claims(issuer: str, audience: str) -> Json:
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": "somebody",
        "aud": audience,
        "exp": now + 300,
        "nbf": now,
        "iat": now,
        "jti": "a-token",
        "access": [{"type": "repository", "name": "team/app", "actions": ["pull", "push"]}],
    }


def forged(
    issuer: str, audience: str, good: str, public_key: Ed25519PublicKey | EllipticCurvePublicKey
) -> Iterator[Forgery]:
    """Yield tokens of an attacker who has a valid token and the public key, but no private key.

    `good` is a token that the server accepts; `public_key` verifies it.
    """
    header, claims = (json.loads(decode(part)) for part in good.split(".")[:2])
    wanted = {**claims, **good_claims(issuer, audience), "sub": "admin"}
    yield from _unsigned(header, wanted)
    yield from _hmac_with_the_public_key(header, wanted, public_key)
    yield from _own_keys(header, wanted)
    yield from _key_names(header, wanted)
    yield from _shapes(good, header, wanted)
    yield from _texts(good)


def missigned(
    issuer: str, audience: str, kid: str, key: PrivateKey, more: Json | None = None
) -> Iterator[Forgery]:
    """Yield invalid tokens that are signed with the private key.

    The server expects an access token of this registry: type JWT, all claims present, with `more`.
    """
    claims = {**good_claims(issuer, audience), **(more or {})}
    algorithm = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
    header = {"alg": algorithm, "kid": kid, "typ": "JWT"}
    sign = signer(key)
    for name, changes in _wrong_claims(issuer, audience):
        changed = {k: v for k, v in {**claims, **changes}.items() if v is not ...}
        yield name, assemble(header, changed, sign)
    for name, changes in _wrong_headers():
        changed = {k: v for k, v in {**header, **changes}.items() if v is not ...}
        yield name, assemble(changed, claims, sign)
    for name, raw in _wrong_json(claims):
        yield f"claims: {name}", assemble(header, raw, sign)
    for name, raw in _wrong_json(header):
        yield f"header: {name}", assemble(raw, claims, sign)


def _unsigned(header: Json, claims: Json) -> Iterator[Forgery]:
    for alg in ("none", "None", "nOnE", "NONE", "", None):
        for name, signature in (("nothing", b""), ("a zero", b"\0")):
            token = assemble({**header, "alg": alg}, claims, _always(signature))
            yield f"alg {alg!r} signed with {name}", token
        yield f"alg {alg!r} alone", assemble({"alg": alg}, claims, _always(b""))
    for size in (64, 96, 256):
        yield f"{size} zeros as signature", assemble(header, claims, _always(bytes(size)))


def _always(signature: bytes) -> Callable[[bytes], bytes]:
    return lambda _: signature


def _hmac_with_the_public_key(
    header: Json, claims: Json, key: Ed25519PublicKey | EllipticCurvePublicKey
) -> Iterator[Forgery]:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = (
        key.public_bytes_raw()
        if isinstance(key, Ed25519PublicKey)
        else key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    jwk = jwk_of(key)
    secrets = {
        "PEM": pem,
        "PEM without its last line end": pem.strip(),
        "DER": der,
        "raw bytes": raw,
        "JWK": json.dumps(jwk).encode(),
        "compact JWK": json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode(),
        "base64 of DER": base64.b64encode(der),
        "base64url of the raw bytes": jwk["x"].encode(),
        "kid": jwk["kid"].encode(),
        "nothing": b"",
    }
    for alg in ("HS256", "HS384", "HS512"):
        for name, secret in secrets.items():
            yield (
                f"{alg} with the public key as {name}",
                assemble({**header, "alg": alg}, claims, _hmac(alg, secret)),
            )
    yield "our algorithm's name over an HMAC", assemble(header, claims, _hmac("HS512", pem))


def _hmac(alg: str, secret: bytes) -> Callable[[bytes], bytes]:
    digest = getattr(hashlib, f"sha{alg[2:]}")
    return lambda message: hmac.digest(secret, message, digest)


def _own_keys(header: Json, claims: Json) -> Iterator[Forgery]:
    key = Ed25519PrivateKey.generate() if header["alg"] == "EdDSA" else _new_ec()
    other = _new_ec() if header["alg"] == "EdDSA" else Ed25519PrivateKey.generate()
    jwk = jwk_of(key.public_key())
    certificate = _certificate()
    yield "the attacker's key under our kid", assemble(header, claims, signer(key))
    yield (
        "the attacker's key of another kind under our kid",
        assemble({**header, "alg": jwk_of(other.public_key())["alg"]}, claims, signer(other)),
    )
    for name, value in {
        "jwk": jwk,
        "jku": "http://127.0.0.1:9/jwks.json",
        "x5u": "http://127.0.0.1:9/chain.pem",
        "x5c": [certificate],
    }.items():
        for kid in (header["kid"], jwk["kid"]):
            whose = "our" if kid == header["kid"] else "the attacker's"
            forged_header = {**header, "kid": kid, name: value}
            yield f"{name} header and {whose} kid", assemble(forged_header, claims, signer(key))
        without = {"alg": header["alg"], "typ": "JWT", name: value}
        yield f"{name} header and no kid", assemble(without, claims, signer(key))


def _key_names(header: Json, claims: Json) -> Iterator[Forgery]:
    sign = signer(Ed25519PrivateKey.generate())
    for kid in (
        "../../../../../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "http://127.0.0.1:9/key",
        "' OR '1'='1",
        "x' UNION SELECT 'key' --",
        "| cat /etc/passwd",
        "",
        " ",
        "\x00",
        "*",
        "%s",
        "__class__",
        0,
        True,
        None,
        [header["kid"]],
        {"kid": header["kid"]},
        header["kid"] + " ",
        header["kid"].swapcase(),
        "k" * 4000,
    ):
        yield f"kid {str(kid)[:40]!r}", assemble({**header, "kid": kid}, claims, sign)
    yield "kid missing", assemble({"alg": header["alg"], "typ": "JWT"}, claims, sign)
    yield (
        "kid of an empty file and its HMAC",
        assemble({**header, "alg": "HS256", "kid": "/dev/null"}, claims, _hmac("HS256", b"")),
    )


def _shapes(good: str, header: Json, claims: Json) -> Iterator[Forgery]:
    first, second, third = good.split(".")
    body = encode(json.dumps(claims).encode())
    yield "other claims under a good signature", f"{first}.{body}.{third}"
    yield "signature stripped", f"{first}.{second}."
    yield "signature cut", f"{first}.{second}.{third[:-4]}"
    yield "signature of half the token", f"{first}..{third}"
    yield "two parts", f"{first}.{second}"
    yield "one part", first
    yield "four parts", f"{good}.{third}"
    yield "five parts, as encrypted tokens", f"{first}.{second}.{third}.{second}.{third}"
    yield "dots", ".."
    yield "nothing", ""
    yield "1 MiB of claims", f"{first}.{'A' * (1 << 20)}.{third}"
    yield "1 MiB of dots", "." * (1 << 20)
    yield "1 MiB of header", f"{'A' * (1 << 20)}.{second}.{third}"
    yield "9 KiB", f"{first}.{'A' * (9 << 10)}.{third}"
    protected = {"payload": second, "signatures": [{"protected": first, "signature": third}]}
    yield "the JSON form of a signed token", json.dumps(protected)
    plain = f"{encode(json.dumps({**header, 'b64': False, 'crit': ['b64']}).encode())}"
    yield "b64 false, detached", f"{plain}..{third}"
    for alg in ([header["alg"]], {"alg": header["alg"]}, 1, header["alg"].lower(), "RS256"):
        changed = encode(json.dumps({**header, "alg": alg}).encode())
        yield f"alg {alg}", f"{changed}.{second}.{third}"


def _texts(good: str) -> Iterator[Forgery]:
    first, second, third = good.split(".")
    for name, end in {
        "a line end": "\n",
        "a space": " ",
        "padding": "==",
        "a character": "A",
        "a dot": ".",
        "NUL": "\x00",
        "a comma and a second token": f",{good}",
    }.items():
        yield f"{name} after it", good + end
    yield "a space before it", f" {good}"
    yield "padding inside", f"{first}==.{second}.{third}"
    # A decoder ignores some bits of the last character, so another text decodes to the same bytes.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(third[-1]) ^ 1]
    yield "base64 that is not canonical", f"{first}.{second}.{third[:-1]}{twin}"
    yield "full-width letters", chr(ord(good[0]) - 0x20 + 0xFF00) + good[1:]
    yield "an accent", good[:5] + "\u0301" + good[5:]
    yield "a lone surrogate", good[:5] + "\ud800" + good[5:]
    yield "full stops of another script", good.replace(".", "\uff0e")


def _wrong_claims(issuer: str, audience: str) -> Iterator[tuple[str, Json]]:
    """Yield changes of claims; `...` removes a claim."""
    now = int(time.time())
    wrong: dict[str, list[Any]] = {
        "iss": ["", "other", issuer[:-1], issuer[1:], f"{issuer}/", f"{issuer}.test"],
        "aud": [
            "",
            "other",
            audience[:-1],
            f"{audience}.test",
            f"{audience} other",
            audience.upper(),
        ],
        "exp": [now - 3600, now - 61, "", str(now + 300), -1, 1e308, 10**30, 10**400],
        "nbf": [now + 3600, now + 120, str(now), -1, [now]],
        "iat": [now + 3600, str(now), -1, 1e308, {}],
        "sub": [1, ["admin"], "a\nb", "a\x00", "\ud800", "a" * 256],
    }
    wrong["iss"] += [issuer.upper(), [issuer], {issuer: 1}, 1]
    wrong["aud"] += [[], ["other"], [audience[:-1]], [[audience]], [audience, 1], {audience: 1}, 1]
    for claim in ("exp", "nbf", "iat"):
        wrong[claim] += [True, float("nan"), float("inf"), float("-inf")]
    for claim, values in wrong.items():
        for value in (..., None, *values):
            shown = "missing" if value is ... else f"{type(value).__name__} {str(value)[:60]!a}"
            yield f"{claim} {shown}", {claim: value}


def _wrong_headers() -> Iterator[tuple[str, Json]]:
    """Yield changes of headers; `...` removes a header."""
    mine = jwk_of(Ed25519PrivateKey.generate().public_key())
    certificate = _certificate()
    yield "typ missing", {"typ": ...}
    for kind in ("refresh", "at+jwt", "JOSE", "", "JWT ", 1, None, ["JWT"]):
        yield f"typ {kind!r}", {"typ": kind}
    for crit in (["exp"], ["b64"], [], "b64", None):
        yield f"crit {crit}", {"crit": crit}
    yield "b64 false", {"b64": False}
    yield "b64 true", {"b64": True}
    yield "b64 false and crit", {"b64": False, "crit": ["b64"]}
    yield "zip", {"zip": "DEF"}
    yield "jwk beside our kid", {"jwk": mine}
    yield "jku beside our kid", {"jku": "http://127.0.0.1:9/jwks.json"}
    yield "x5u beside our kid", {"x5u": "http://127.0.0.1:9/chain.pem"}
    yield "x5c beside our kid", {"x5c": [certificate]}
    yield "alg missing", {"alg": ...}
    yield "kid missing, signed by our key", {"kid": ...}


def _wrong_json(fields: Json) -> Iterator[tuple[str, bytes]]:
    text = json.dumps(fields)
    first = next(iter(fields))
    yield "a key twice", f'{text[:-1]}, "{first}": {json.dumps(fields[first])}}}'.encode()
    yield (
        "a key twice, once in escapes",
        f'{text[:-1]}, "\\u{ord(first[0]):04x}{first[1:]}": 1}}'.encode(),
    )
    yield "an inner key twice", f'{text[:-1]}, "jti2": {{"a": 1, "a": 2}}}}'.encode()
    yield "NaN", f'{text[:-1]}, "x": NaN}}'.encode()
    yield "a list", f"[{text}]".encode()
    yield "a string", json.dumps(text).encode()
    yield "null", b"null"
    yield "nothing", b" "
    yield "two objects", f"{text}{text}".encode()
    yield "cut", text[:-1].encode()
    yield "a byte order mark", b"\xef\xbb\xbf" + text.encode()
    yield "UTF-16", text.encode("utf-16")
    yield "no UTF-8", text.replace(first, first + "\xff").encode("latin-1")
    yield "nested deeply", f'{text[:-1]}, "x": {"[" * 2000}{"]" * 2000}}}'.encode()
    yield "a number without an end", f'{text[:-1]}, "x": {"9" * 4400}}}'.encode()


def _new_ec() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def _certificate() -> str:
    """Return a certificate of the attacker for an `x5c` header."""
    return "".join(Authority().bundle.decode().splitlines()[1:-1])
