"""Signed tokens: what is accepted and what is refused."""

import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example, given
from hypothesis import strategies as st

from registry.auth.keys.jose import VerificationKey
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
    make,
    verify,
)
from tests.support.forged_tokens import (
    PrivateKey,
    assemble,
    forged,
    good_claims,
    missigned,
    signer,
)


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
        assert claim not in verify(token, external=True)
        with pytest.raises(TokenInvalidError):
            verify(token)

    def test_headers_that_are_not_read(self) -> None:
        token = self.sign({}, typ="JWT", x5c=["MIIB"], x5t="AAAA")
        verify(token, external=True)
        with pytest.raises(TokenInvalidError):
            verify(token)

    def test_no_type(self) -> None:
        verify(self.sign({}), external=True, types=self.TYPES)
        with pytest.raises(TokenInvalidError, match="type"):
            verify(self.sign({}), external=True)

    @pytest.mark.parametrize(
        "header",
        [{"jwk": {}}, {"jku": ""}, {"x5u": ""}, {"crit": ["exp"]}, {"b64": True}, {"zip": "DEF"}],
    )
    def test_headers_that_change_what_is_verified(self, header: Mapping[str, Any]) -> None:
        with pytest.raises(TokenInvalidError, match="header"):
            verify(self.sign({}, **header), external=True, types=self.TYPES)

    @pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat"])
    def test_claims_that_may_not(self, claim: str) -> None:
        with pytest.raises(TokenInvalidError):
            verify(self.sign({claim: ...}), external=True, types=self.TYPES)

    @pytest.mark.parametrize("changes", [{"nbf": 4_102_444_800}, {"nbf": None}, {"sub": 1}])
    def test_a_claim_that_is_there_is_judged(self, changes: Mapping[str, Any]) -> None:
        with pytest.raises(TokenInvalidError):
            verify(self.sign(changes), external=True, types=self.TYPES)


@given(st.text())
@example("\ud800.\ud800.\ud800")
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(TokenInvalidError):
        verify(text)


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
