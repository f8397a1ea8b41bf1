"""Tokens and keys with real keys, and refusal of every token that forging.py makes."""

import base64
import hashlib
import json
import subprocess
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from registry.auth.keys import jose
from registry.auth.keys.jose import VerificationKey, jwk_of, public_keys, thumbprint
from registry.errors import TokenInvalidError
from tests.support.forging import (
    PrivateKey,
    assemble,
    encode,
    forged,
    good_claims,
    missigned,
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


@SIGNERS
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": [AUDIENCE]},
        {"aud": ["other", AUDIENCE]},
        {"sub": ""},
        {"sub": "J\u00fcrgen"},
        {"exp": lambda: time.time() + 300.5},
        {"exp": lambda: int(time.time()) - 30},
        {"nbf": lambda: int(time.time()) + 30},
        {"iat": lambda: int(time.time()) + 30},
        {"exp": 253_402_300_799},
    ],
)
def test_accepts(private: PrivateKey, changes: Mapping[str, Any]) -> None:
    # Compute the times when the test runs, which may be long after its collection.
    changes = {name: value() if callable(value) else value for name, value in changes.items()}
    expected = {**good_claims(ISSUER, AUDIENCE), **changes}
    assert verify(make(private, changes))["sub"] == expected["sub"]


def test_claims_come_as_they_were_signed() -> None:
    claims = good_claims(ISSUER, AUDIENCE)
    assert verify(make(ED25519, claims)) == claims


@SIGNERS
def test_refuses_what_is_made_without_the_key(private: PrivateKey) -> None:
    good = make(private)
    verify(good)
    names = set()
    for name, token in forged(ISSUER, AUDIENCE, good, private.public_key()):
        assert name not in names, f"{name} is there twice"
        names.add(name)
        with pytest.raises(TokenInvalidError) as caught:
            pytest.fail(f"accepted {name}: {verify(token)}")
        assert "admin" not in caught.value.message, name
    assert len(names) >= 30


@SIGNERS
def test_refuses_what_is_signed_and_wrong(private: PrivateKey) -> None:
    key = key_of(private)
    for name, token in missigned(ISSUER, AUDIENCE, key.kid, private):
        with pytest.raises(TokenInvalidError) as caught:
            pytest.fail(f"accepted {name}: {verify(token)}")
        # The signature is valid, so the refusal must have another reason.
        assert "signature" not in caught.value.message, name


def test_refuses_a_token_under_another_keys_name() -> None:
    twin = ed25519.Ed25519PrivateKey.generate()
    both = {**KEYS, key_of(twin).kid: key_of(twin)}
    header = {"alg": "EdDSA", "kid": key_of(ED25519).kid, "typ": "JWT"}
    with pytest.raises(TokenInvalidError, match="signature"):
        verify(assemble(header, good_claims(ISSUER, AUDIENCE), signer(twin)), both)
    renamed = {**header, "kid": key_of(P256).kid}
    with pytest.raises(TokenInvalidError, match="algorithm"):
        verify(assemble(renamed, good_claims(ISSUER, AUDIENCE), signer(ED25519)))


def test_a_revoked_key_is_unknown() -> None:
    with pytest.raises(TokenInvalidError, match="unknown key"):
        verify(make(ED25519), {})


def test_one_algorithm_a_key() -> None:
    key = VerificationKey("rsa", "RS256", RSA.public_key())
    claims = good_claims(ISSUER, AUDIENCE)
    for algorithm in ("RS256", "RS384", "PS256"):
        token = jwt.encode(claims, RSA, algorithm, headers={"kid": "rsa"})
        if algorithm == key.algorithm:
            assert verify(token, {"rsa": key}) == claims
        else:
            with pytest.raises(TokenInvalidError, match="algorithm"):
                verify(token, {"rsa": key})


def test_the_limit_is_8_kib() -> None:
    for padding, accepted in ((1000, True), (7000, False)):
        token = make(ED25519, {"padding": "x" * padding})
        assert (len(token) <= 8192) == accepted
        if accepted:
            verify(token)
        else:
            with pytest.raises(
                TokenInvalidError, match=f"has {len(token)} bytes, but at most 8192"
            ):
                verify(token)


def test_types_are_compared_without_case() -> None:
    header = {"alg": "EdDSA", "kid": key_of(ED25519).kid, "typ": "At+JWT"}
    token = assemble(header, good_claims(ISSUER, AUDIENCE), signer(ED25519))
    verify(token, types=frozenset({"at+jwt"}))
    with pytest.raises(TokenInvalidError, match="type"):
        verify(token)


def test_leeway() -> None:
    token = make(ED25519, {"exp": int(time.time()) - 30})
    verify(token)
    with pytest.raises(TokenInvalidError, match="expired"):
        verify(token, leeway=10.0)


class TestOutside:
    """Features that only tokens of an external issuer may use."""

    TYPES = frozenset({"", "jwt"})

    def sign(self, changes: Mapping[str, Any], **header: Any) -> str:
        fields = {"alg": "EdDSA", "kid": key_of(ED25519).kid, **header}
        claims = {**good_claims(ISSUER, AUDIENCE), **changes}
        claims = {k: v for k, v in claims.items() if v is not ...}
        return assemble(fields, claims, signer(ED25519))

    @pytest.mark.parametrize("claim", ["nbf", "sub"])
    def test_claims_that_may_be_left_out(self, claim: str) -> None:
        token = self.sign({claim: ...}, typ="JWT")
        assert claim not in verify(token, outside=True)
        with pytest.raises(TokenInvalidError):
            verify(token)

    def test_headers_that_are_not_read(self) -> None:
        token = self.sign({}, typ="JWT", x5c=["MIIB"], x5t="AAAA")
        verify(token, outside=True)
        with pytest.raises(TokenInvalidError):
            verify(token)

    def test_no_type(self) -> None:
        verify(self.sign({}), outside=True, types=self.TYPES)
        with pytest.raises(TokenInvalidError, match="type"):
            verify(self.sign({}), outside=True)

    @pytest.mark.parametrize(
        "header",
        [{"jwk": {}}, {"jku": ""}, {"x5u": ""}, {"crit": ["exp"]}, {"b64": True}, {"zip": "DEF"}],
    )
    def test_headers_that_change_what_is_verified(self, header: Mapping[str, Any]) -> None:
        with pytest.raises(TokenInvalidError, match="header"):
            verify(self.sign({}, **header), outside=True, types=self.TYPES)

    @pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat"])
    def test_claims_that_may_not(self, claim: str) -> None:
        with pytest.raises(TokenInvalidError):
            verify(self.sign({claim: ...}), outside=True, types=self.TYPES)

    @pytest.mark.parametrize("changes", [{"nbf": 4_102_444_800}, {"nbf": None}, {"sub": 1}])
    def test_a_claim_that_is_there_is_judged(self, changes: Mapping[str, Any]) -> None:
        with pytest.raises(TokenInvalidError):
            verify(self.sign(changes), outside=True, types=self.TYPES)


@given(st.text())
@example("\ud800.\ud800.\ud800")
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(TokenInvalidError):
        verify(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("alg", "kid", "typ", "crit", "jwk", "b64"), json_values)
)


@given(headers | json_values, json_values)
def test_no_header_does_more_than_be_refused(header: object, claims: object) -> None:
    sign = signer(ED25519)
    parts = json.dumps(header).encode(), json.dumps(claims).encode()
    with pytest.raises(TokenInvalidError):
        verify(assemble(*parts, sign))


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("iss", "aud", "exp", "nbf", "iat", "sub"), json_values)
    )
)
def test_no_claim_does_more_than_be_refused(changes: dict[str, Any]) -> None:
    claims = {**good_claims(ISSUER, AUDIENCE), **changes}
    header = {"alg": "EdDSA", "kid": key_of(ED25519).kid, "typ": "JWT"}
    try:
        verified = verify(assemble(header, claims, signer(ED25519)))
    except TokenInvalidError:
        return
    assert verified["iss"] == ISSUER
    assert AUDIENCE in verified["aud"]
    assert all(type(verified[name]) in {int, float} for name in ("exp", "nbf", "iat"))
    assert verified["exp"] > time.time() - 61
    assert isinstance(verified["sub"], str)


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

    @pytest.mark.parametrize("outside", [True, False])
    def test_a_token_without_a_name_is_taken_where_there_is_one_key(self, outside: bool) -> None:
        one = jose.add_aliases({key_of(ED25519).kid: key_of(ED25519)})
        claims = good_claims(ISSUER, AUDIENCE)
        token = assemble({"alg": "EdDSA", "typ": "JWT"}, claims, signer(ED25519))
        assert verify(token, one, outside=True)["sub"] == claims["sub"]
        forgery = assemble(
            {"alg": "EdDSA", "typ": "JWT"},
            claims,
            signer(ed25519.Ed25519PrivateKey.generate()),
        )
        with pytest.raises(TokenInvalidError, match="signature"):
            verify(forgery, one, outside=True)
        for keys in (KEYS, jose.add_aliases(KEYS)):
            with pytest.raises(TokenInvalidError, match="more than one" if outside else "unknown"):
                verify(token, keys, outside=outside)

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
