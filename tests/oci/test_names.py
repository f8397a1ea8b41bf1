"""Repository names compared with the grammar, implemented without regular expressions."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import NameInvalidError
from registry.oci.names import RepositoryName

ALNUM = set("abcdefghijklmnopqrstuvwxyz0123456789")


def is_name(text: str) -> bool:
    return len(text) <= 255 and all(is_component(part) for part in text.split("/"))


def is_component(part: str) -> bool:
    if not part or part[0] not in ALNUM or part[-1] not in ALNUM:
        return False
    separators = re.split(r"[a-z0-9]", part)
    return all(s in {"", ".", "_", "__"} or set(s) == {"-"} for s in separators)


@pytest.mark.parametrize(
    "text",
    ["a", "0", "team/app", "a.b", "a_b", "a__b", "a-b", "a----b", "a/b/c/d/e", "a" * 255],
)
def test_accepts(text: str) -> None:
    name = RepositoryName.parse(text)
    assert name.value == text
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "team/App",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a.",
        "a..b",
        "a___b",
        "a._b",
        "a-_b",
        "-a",
        "a-",
        "..",
        "a/../b",
        "a b",
        "a\n",
        "a\x00",
        "a:b",
        "a%2fb",
        "é",
        "\u0661",  # ARABIC-INDIC DIGIT ONE
        "\u212a",  # KELVIN SIGN, whose lower case is k
        "\ud800",
        "a" * 256,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(NameInvalidError) as caught:
        RepositoryName.parse(text)
    assert caught.value.message.isascii()


@given(st.text(alphabet="ab0._-/A", max_size=12))
@example("a" * 254 + "/")
def test_agrees_with_the_grammar(text: str) -> None:
    try:
        RepositoryName.parse(text)
    except NameInvalidError:
        assert not is_name(text)
    else:
        assert is_name(text)


@pytest.mark.timeout(5, func_only=True)
@pytest.mark.parametrize("piece", ["a", "a-", "a_", "a__", "a.", "a/", "-", "a--"])
def test_no_text_is_slow(piece: str) -> None:
    for _ in range(1000):
        with pytest.raises(NameInvalidError):
            RepositoryName.parse((piece * 255)[:254] + "!")
    with pytest.raises(NameInvalidError):
        RepositoryName.parse(piece * 1_000_000)


def test_sorts_by_bytes() -> None:
    texts = ["a", "a-b", "a.b", "a/b", "a0", "a_b", "b"]
    names = {RepositoryName.parse(text) for text in texts}
    assert [str(name) for name in sorted(names)] == texts
