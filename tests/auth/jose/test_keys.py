"""Keys: thumbprints, JWKs and aliases."""

import base64
import hashlib
import json
import subprocess
import textwrap
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from registry.auth.keys import jose
from registry.auth.keys.jose import VerificationKey, jwk_of, public_keys, thumbprint
from registry.errors import TokenInvalidError
from tests.auth.jose.helpers import (
    AUDIENCE,
    ED25519,
    ISSUER,
    KEYS,
    P256,
    RSA,
    SIGNERS,
    json_values,
    key_of,
    verify,
)
from tests.support.forged_tokens import (
    PrivateKey,
    assemble,
    encode,
    good_claims,
    signer,
)

# The example of RFC 7638, section 3.1.
RFC7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_B"
    "JECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F"
    "DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4"
    "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def test_thumbprint() -> None:
    assert thumbprint(RFC7638) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@SIGNERS
def test_jwk_of_our_keys(private: PrivateKey) -> None:
    jwk = jwk_of(private.public_key())
    assert jwk["kid"] == thumbprint(jwk)
    assert jwk["use"] == "sig"
    assert "d" not in jwk
    [key] = public_keys({"keys": [jwk]}).values()
    assert key.kid == jwk["kid"]
    assert key.algorithm == jwk["alg"]
    assert key.key == private.public_key()


def numbers(size: int) -> dict[str, str]:
    public = rsa.generate_private_key(65537, size).public_key().public_numbers()
    return {
        "kty": "RSA",
        "n": encode(public.n.to_bytes(size // 8, "big")),
        "e": encode(public.e.to_bytes(3, "big")),
    }


def private_jwk(private: PrivateKey) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.PyJWK(jwk_of(private.public_key())).Algorithm.to_jwk(
        private, as_dict=True
    )
    assert "d" in jwk
    return jwk


P384 = jwt.algorithms.ECAlgorithm.to_jwk(
    ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True
)
RSA_JWK = {k: RFC7638[k] for k in ("kty", "n", "e")}


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        (P384, "ES384"),
        (RSA_JWK, "RS256"),
        ({**RSA_JWK, "alg": "RS384"}, "RS384"),
        ({**RSA_JWK, "alg": "RS512"}, "RS512"),
        ({**RSA_JWK, "alg": "PS256"}, "PS256"),
        (private_jwk(ED25519), "EdDSA"),
        (private_jwk(P256), "ES256"),
        ({**P384, "use": "sig", "key_ops": ["verify"], "x5c": ["junk"]}, "ES384"),
    ],
)
def test_keys_that_are_read(jwk: dict[str, Any], algorithm: str) -> None:
    [(kid, key)] = public_keys({"keys": [jwk]}).items()
    assert kid == key.kid == thumbprint(jwk)
    assert key.algorithm == algorithm
    assert not hasattr(key.key, "sign")


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "EdDSA", "crv": "Ed25519", "x": "c2VjcmV0"},
        {**P384, "use": "enc"},
        {**P384, "use": None},
        {**P384, "alg": "ES256"},
        {**P384, "alg": "HS256"},
        {**P384, "alg": "none"},
        {**P384, "alg": ["ES384"]},
        {**P384, "crv": "P-256"},
        {**P384, "crv": "P-521"},
        {**P384, "crv": None},
        {**P384, "x": P384["y"]},
        {**P384, "x": 1},
        {**P384, "x": ""},
        {**P384, "x": P384["x"] + "\n"},
        {**P384, "kid": 1},
        {**P384, "kid": None},
        {**P384, "kty": ["EC"]},
        {**P384, "kty": "ec"},
        {k: v for k, v in P384.items() if k != "y"},
        {**RSA_JWK, "alg": "HS256"},
        {**RSA_JWK, "alg": "RSA-OAEP"},
        {**RSA_JWK, "e": "AQ"},
        {**RSA_JWK, "e": "AAAA"},
        {**RSA_JWK, "n": RSA_JWK["n"] * 10},
        numbers(1024),
        {**jwk_of(ED25519.public_key()), "x": "AAAA"},
        {**jwk_of(ED25519.public_key()), "crv": "X25519"},
        jwt.algorithms.OKPAlgorithm.to_jwk(
            ed448.Ed448PrivateKey.generate().public_key(), as_dict=True
        ),
        None,
        "a key",
        [],
    ],
)
def test_keys_that_are_left_out(jwk: object) -> None:
    good = jwk_of(ED25519.public_key())
    assert set(public_keys({"keys": [jwk, good]})) == {good["kid"]}


@pytest.mark.parametrize("jwks", [None, [], "", {}, {"keys": None}, {"keys": {}}, {"keys": "x"}, 1])
def test_no_document(jwks: object) -> None:
    assert public_keys(jwks) == {}


def test_at_most_100_keys() -> None:
    jwk = jwk_of(ED25519.public_key())
    keys = [{**jwk, "kid": str(number)} for number in range(200)]
    assert list(public_keys({"keys": keys})) == [str(number) for number in range(100)]


@pytest.fixture(scope="module")
def issuers() -> dict[str, VerificationKey]:
    """Return the keys of a JWK set, one of each type, each with its own ID."""
    document = [
        {**ECAlgorithm.to_jwk(P256.public_key(), as_dict=True), "kid": "ec"},
        {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "rsa"},
        {**jwk_of(ED25519.public_key()), "kid": "ed"},
    ]
    return public_keys({"keys": document})


class TestAliases:
    """Key IDs of docker_auth, GitLab and Distribution, computed by OpenSSL and by hand."""

    @pytest.mark.parametrize(("name", "private"), [("ec", P256), ("rsa", RSA), ("ed", ED25519)])
    def test_both_names_of_docker_auth(
        self, issuers: dict[str, VerificationKey], name: str, private: Any
    ) -> None:
        der = subprocess.run(
            ["openssl", "pkey", "-pubin", "-outform", "DER"],
            input=private.public_key().public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            ),
            capture_output=True,
            check=True,
        ).stdout
        text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
        libtrust = ":".join(textwrap.wrap(text, 4))
        assert len(libtrust) == 59
        keys = jose.add_aliases(issuers)
        assert keys[libtrust] is keys[name] is issuers[name]
        jwk = json.loads(
            jwt.get_algorithm_by_name(issuers[name].algorithm).to_jwk(private.public_key())
        )
        assert keys[thumbprint(jwk)] is issuers[name]

    def test_the_name_that_docker_auth_gives_each_key_of_a_curve(
        self, issuers: dict[str, VerificationKey]
    ) -> None:
        """docker_auth names each key of a curve by the thumbprint of the generator of P-256."""
        generator = {
            "crv": "P-256",
            "kty": "EC",
            "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
        }
        assert jose.add_aliases(issuers)[thumbprint(generator)] is issuers["ec"]
        other = ec.generate_private_key(ec.SECP256R1())
        two = {**issuers, "other": key_of(other)}
        assert thumbprint(generator) not in jose.add_aliases(two)

    @pytest.mark.parametrize("external", [True, False])
    def test_a_token_without_a_name_is_taken_where_there_is_one_key(self, external: bool) -> None:
        one = jose.add_aliases({key_of(ED25519).kid: key_of(ED25519)})
        claims = good_claims(ISSUER, AUDIENCE)
        token = assemble({"alg": "EdDSA", "typ": "JWT"}, claims, signer(ED25519))
        assert verify(token, one, external=True)["sub"] == claims["sub"]
        forgery = assemble(
            {"alg": "EdDSA", "typ": "JWT"},
            claims,
            signer(ed25519.Ed25519PrivateKey.generate()),
        )
        with pytest.raises(TokenInvalidError, match="signature"):
            verify(forgery, one, external=True)
        for keys in (KEYS, jose.add_aliases(KEYS)):
            with pytest.raises(TokenInvalidError, match="more than one" if external else "unknown"):
                verify(token, keys, external=external)

    def test_names_of_the_document_come_first(self) -> None:
        first, second = key_of(ED25519), key_of(P256)
        keys = {first.kid: second, second.kid: first}
        found = jose.add_aliases(keys)
        assert found[first.kid] is second
        assert found[second.kid] is first


def test_of_two_keys_of_one_name_the_first_counts() -> None:
    first, second = (jwk_of(key.public_key()) for key in (ED25519, P256))
    keys = public_keys({"keys": [{**first, "kid": "a"}, {**second, "kid": "a"}]})
    assert keys["a"].algorithm == "EdDSA"


@given(json_values)
def test_no_document_raises(jwks: object) -> None:
    public_keys({"keys": [jwks]})
    public_keys(jwks)


mutations: st.SearchStrategy[Callable[[str], object]] = st.sampled_from(
    [
        lambda value: value[:-1],
        lambda value: value + "A",
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: [value],
        lambda _: None,
        lambda _: 0,
    ]
)


@given(st.sampled_from([P384, RSA_JWK, jwk_of(ED25519.public_key())]), st.data())
def test_no_spoilt_key_raises(jwk: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(jwk)))
    public_keys({"keys": [{**jwk, name: data.draw(mutations)(str(jwk[name]))}]})
