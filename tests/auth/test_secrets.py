"""Secrets that the registry generates, and the hashes that it stores."""

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.credentials.secrets import Hasher, find_secret, new_secret

ID, VALUE = "0123456789abcdef", "0123456789abcdef" * 4


def test_a_secret_is_read_again() -> None:
    secret = new_secret()
    assert re.fullmatch(r"moorage_[0-9a-f]{16}_[0-9a-f]{64}", secret.reveal())
    assert find_secret(secret.reveal()) == secret


def test_no_two_are_alike() -> None:
    made = [new_secret() for _ in range(1000)]
    assert len({secret.id for secret in made}) == len({secret.value for secret in made}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        *("", "moorage_", f"moorage_{ID}", f"moorage_{ID}_", f"{ID}_{VALUE}"),
        *(f"moorage_{ID}_{VALUE}0", f"moorage_{ID}_{VALUE[1:]}", f"moorage_{ID}0_{VALUE}"),
        *(f" moorage_{ID}_{VALUE}", f"moorage_{ID}_{VALUE}\n", f"Moorage_{ID}_{VALUE}"),
        *(f"moorage_{ID.upper()}_{VALUE}", f"moorage_{ID}_{VALUE.upper()}", "moorage_\ud800"),
        "moorage_" + "\u0661" * 16 + f"_{VALUE}",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert find_secret(text) is None


@given(st.text())
def test_no_text_crashes(text: str) -> None:
    assert find_secret(text) is None
    assert find_secret(f"moorage_{text}") is None


def test_it_does_not_print() -> None:
    secret = new_secret()
    trace = traceback.format_exception(ValueError(secret))
    printed = f"{secret} {secret!r} {[secret]} {trace}"
    assert secret.value not in printed
    assert secret.id in printed


def test_a_hash_is_of_one_secret_and_one_key() -> None:
    secret, other = new_secret(), new_secret()
    hasher, stranger = Hasher(b"k" * 32), Hasher(b"l" * 32)
    kept = hasher.hash(secret.value)
    assert hasher.matches(secret, kept)
    assert not hasher.matches(other, kept)
    assert not stranger.matches(secret, kept)
    assert not hasher.matches(secret, "")
    assert secret.value not in kept
    assert Hasher(b"k" * 32).hash(secret.value) == kept


@given(st.text())
def test_any_name_has_a_hash(name: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", Hasher(b"k").hash(name))


def test_what_is_no_unicode_has_a_hash_too() -> None:
    assert Hasher(b"k").hash("\ud800") != Hasher(b"k").hash("\ud801")
