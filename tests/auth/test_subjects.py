"""Account names, and the subjects of grants."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.subjects import (
    ANONYMOUS,
    AUTHENTICATED,
    Subject,
    SubjectKind,
    parse_account_name,
    parse_user_name,
)
from registry.errors import AccountNameInvalidError, InputInvalidError, SubjectInvalidError
from registry.oci.names import RepositoryName, is_repository_name

RESERVED = ["anonymous", "authenticated", "operator", "oidc"]
ALPHABET = "abz019._-"


def is_name(text: str) -> bool:
    """Check the grammar without a regular expression."""
    marks = set("._-")
    if not 1 <= len(text) <= 64 or text in RESERVED or text[0] in marks or text[-1] in marks:
        return False
    if any(one in marks and other in marks for one, other in itertools.pairwise(text)):
        return False
    return all(c in marks or c in "abcdefghijklmnopqrstuvwxyz0123456789" for c in text)


account_names = st.text(ALPHABET, max_size=8).filter(is_name)


@pytest.mark.parametrize("text", ["a", "0", "ann", "ann.lee", "a_b-c.d", "a" * 64])
def test_accepts(text: str) -> None:
    assert parse_account_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Ann",
            "ann ",
            " ann",
            "ann\n",
            "a..b",
            "a__b",
            "a--b",
            ".a",
            "a.",
            "-",
            "a/b",
            "a:b",
        ),
        *("a+b", "robot+ci", "é", "\u0661", "\u212a", "\ud800", "a\x00b", "a" * 65, "%", *RESERVED),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(AccountNameInvalidError) as caught:
        parse_account_name(text)
    caught.value.message.encode()


@given(st.text(ALPHABET + "A/:+%", max_size=10) | st.text())
def test_the_grammar(text: str) -> None:
    try:
        parse_account_name(text)
    except AccountNameInvalidError:
        assert not is_name(text)
    else:
        assert is_name(text)


USERS = [
    *("ann", "_ann", "Ann", "ANN.Lee", "ann@example.org", "Ann.Lee+ci@Mail.Example.ORG"),
    *("a--b", "a..b", "a-", "0", "_", "a" * 254, "root@localhost", "anonymous@example.org"),
]


@pytest.mark.parametrize("text", USERS)
def test_user_names(text: str) -> None:
    assert parse_user_name(text) == text
    assert Subject.parse(text) == Subject.parse(f"user:{text}")
    assert str(Subject.parse(text)) == text
    for kind in ("group", "robot"):
        if not is_name(text):
            with pytest.raises(AccountNameInvalidError):
                Subject.parse(f"{kind}:{text}")


@pytest.mark.parametrize(
    "text",
    [
        *("", " ann", "ann ", "ann\n", "a\x00b", "@ann", ".ann", "-", "-ann", "+ann", "a/b", "a:b"),
        *("ann%40example.org", "a*", "é", "\u0661", "\u212a", "\ud800", "a" * 255, "a,b", "a b"),
        *("robot+ci", "Robot+ci", *RESERVED, *map(str.title, RESERVED), *map(str.upper, RESERVED)),
    ],
)
def test_no_user_names(text: str) -> None:
    with pytest.raises(AccountNameInvalidError) as caught:
        parse_user_name(text)
    caught.value.message.encode()


@given(st.text(ALPHABET + "AZ@+:/%", max_size=10) | st.text())
def test_a_user_name_is_safe_in_paths_and_credentials(text: str) -> None:
    try:
        parse_user_name(text)
    except AccountNameInvalidError:
        return
    assert text.isascii()
    assert not set(text) & set("/:%?#,* \\")
    assert text.isprintable()


def test_a_repository_name_begins_with_some_user_names_alone() -> None:
    found = [name for name in USERS if is_repository_name(name)]
    assert found == ["ann", "a--b", "0", "a" * 254]


@given(account_names)
def test_every_name_has_a_namespace(name: str) -> None:
    RepositoryName.parse(f"{name}/app")
    assert RepositoryPattern.parse(f"{name}/**").matches(f"{name}/app")


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("ann", Subject(SubjectKind.USER, "ann")),
        ("user", Subject(SubjectKind.USER, "user")),
        ("group", Subject(SubjectKind.USER, "group")),
        ("group:devs", Subject(SubjectKind.GROUP, "devs")),
        ("robot:ci", Subject(SubjectKind.ROBOT, "ci")),
        ("authenticated", AUTHENTICATED),
        ("anonymous", ANONYMOUS),
    ],
)
def test_reads_and_writes_subjects(text: str, subject: Subject) -> None:
    assert Subject.parse(text) == subject
    assert str(subject) == text


def test_a_user_may_be_named_in_full() -> None:
    assert Subject.parse("user:ann") == Subject.parse("ann")


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":ann", "ann:", "group:", "robot:", "user:group:devs", "group:robot:ci"),
        *("authenticated:ann", "anonymous:ann", "authenticated:", "team:devs", "Group:devs"),
        *("group:anonymous", "robot:authenticated", "user:operator", "group:a/b", "robot+ci"),
        *("Anonymous", "anonymous ", "\ud800", "\ud800:a"),
    ],
)
def test_refuses_subjects(text: str) -> None:
    with pytest.raises((SubjectInvalidError, AccountNameInvalidError)) as caught:
        Subject.parse(text)
    caught.value.message.encode()


@given(st.sampled_from([SubjectKind.USER, SubjectKind.GROUP, SubjectKind.ROBOT]), account_names)
def test_what_is_written_is_read_again(kind: SubjectKind, name: str) -> None:
    subject = Subject(kind, name)
    assert Subject.parse(str(subject)) == subject


@given(st.text() | st.text(alphabet="uporg:an", max_size=12))
def test_no_text_crashes(text: str) -> None:
    try:
        subject = Subject.parse(text)
    except InputInvalidError:
        return
    assert text in {str(subject), f"user:{subject}"}
