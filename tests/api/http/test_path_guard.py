"""Raw request paths: no encoding of a path reaches another repository."""

import json
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import PathInvalidError
from registry.http.path_guard import canonical_path
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import index_manifest

RAW = index_manifest([])
DIGEST = Digest.of(RAW)

NAMES = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+)*", fullmatch=True)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True).filter(
    lambda tag: tag not in {".", ".."}
)


@pytest.fixture
def driver() -> str:
    return "memory"


# The function


@st.composite
def escaped(draw: st.DrawFn, text: str) -> bytes:
    """Draw `text` with some characters, but no slash, percent-encoded in upper or lower case."""
    forms = st.sampled_from(["%c", "%%%02x", "%%%02X"])
    return "".join(c if c == "/" else draw(forms) % ord(c) for c in text).encode()


@given(st.data(), NAMES, TAGS)
def test_escapes_of_plain_characters_mean_the_same(
    data: st.DataObject, name: str, tag: str
) -> None:
    for path in (f"/v2/{name}/manifests/{tag}", f"/v2/{name}/blobs/{DIGEST}"):
        assert canonical_path(data.draw(escaped(path))) == path


PIECES = st.sampled_from(
    [b"/", b"//", b"/v2/", b"%2F", b"%2f", b"%5C", b"\\", b".", b"..", b"%2e", b"%2E", b"%00",
     b"%", b"%zz", b"%252F", b"%25", b";", b";x", b"?", b"#", b"%23", b"%3F", b" ", b"%20", b"+",
     b"a", b"A", b"_", b"%5f", b"%C3%A9", b"\xff", b"%FF", b"\0", b"\n", b"%0a", b"%0d%0a", b":",
     b"%3A", b"@", b"blobs", b"/manifests/", b"/tags/list", b"/blobs/uploads/", b"b/c"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=60))
@example(b"")
@example(b"/")
@example(b"/v2")
@example(b"/v2/a/../b")
@example(b"/v2/a%2f..%2fb/tags/list")
def test_every_path_is_refused_or_means_one_thing(raw: bytes) -> None:
    try:
        path = canonical_path(raw)
    except PathInvalidError:
        return
    # The path equals the result of any number of decodings.
    decoded = unquote_to_bytes(raw)
    assert path.encode() == decoded == unquote_to_bytes(decoded)
    assert canonical_path(decoded) == path
    # The slashes are those of the raw path: no escape hides or adds one.
    assert [len(part) for part in path.split("/")] == [
        len(unquote_to_bytes(part)) for part in raw.split(b"/")
    ]
    # The path has nothing that a proxy or a file system would resolve.
    assert path.startswith("/")
    assert not re.search(r"//|/\.{1,2}(/|$)|[\\%\x00-\x20\x7f?#]|[^\x00-\x7f]", path)


@given(NAMES, st.binary(min_size=1, max_size=8))
def test_a_repository_is_reached_by_its_own_segments_alone(name: str, inserted: bytes) -> None:
    """Bytes inserted after the name never lead to the repository of that name."""
    raw = b"/v2/" + name.encode() + inserted + b"/tags/list"
    try:
        path = canonical_path(raw)
    except PathInvalidError:
        return
    assert path != f"/v2/{name}/tags/list"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"v2/", b"*", b"//v2/", b"/v2//", b"/v2//a/tags/list", b"/v2/a//tags/list", b"/./v2/",
        b"/v2/.", b"/v2/..", b"/v2/a/./tags/list", b"/v2/a/../b/tags/list", b"/v2/%2e%2e/x",
        b"/v2/.%2E/x", b"/v2/a%2Fb", b"/v2/a%2fb", b"/v2/a%5cb", b"/v2/a\\b", b"/v2/a%00",
        b"/v2/a\0", b"/v2/a%", b"/v2/a%2", b"/v2/a%zz", b"/v2/a%252Fb", b"/v2/a%25", b"/v2/a%20b",
        b"/v2/a b", b"/v2/a%3Fn=1", b"/v2/a%23b", b"/v2/a#b", b"/v2/\xff", b"/v2/%ff",
        b"/v2/%C3%A9", b"/v2/\xc3\xa9", b"/v2/a%0a", b"/v2/a%0d%0aX:y", b"/v2/a%7f", b"/v2/<b>",
        b'/v2/"', b"/v2/a|b", b"/v2/%u0041",
    ],
)  # fmt: skip
def test_refuses(raw: bytes) -> None:
    with pytest.raises(PathInvalidError):
        canonical_path(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/v2", "/v2"),
        (b"/v2/", "/v2/"),
        (b"/v2/a/tags/list/", "/v2/a/tags/list/"),
        (b"/v2/a/blobs/sha256%3Aab", "/v2/a/blobs/sha256:ab"),
        (b"/v2/a%5fb/%74ags/list", "/v2/a_b/tags/list"),
        (b"/v2/...", "/v2/..."),
        (b"/v2/a;x=1", "/v2/a;x=1"),
        (b"/v2/a+b", "/v2/a+b"),
        (b"/v2/a%2Bb", "/v2/a+b"),
    ],
)
def test_accepts(raw: bytes, path: str) -> None:
    assert canonical_path(raw) == path


# The API


async def fill(api: Api) -> None:
    """Push a manifest with tag t to many repositories, each annotated with its repository."""
    for name in ("a", "a/b", "a_b", "b", "v2", "a/manifests", "a/blobs/uploads", "tags/list"):
        raw = index_manifest([], annotations={"name": name})
        assert (await api.put_manifest(name, "t", raw)).status_code == 201


@pytest.mark.anyio
async def test_the_repository_meant_answers_or_none(api: Api) -> None:
    await fill(api)
    for target, name in (
        ("/v2/a/manifests/t", "a"),
        ("/v2/%61/manifests/%74", "a"),
        ("/v2/a/b/manifests/t", "a/b"),
        ("/v2/a%5Fb/manifests/t", "a_b"),
        ("/v2/a%5fb/%6Danifests/t", "a_b"),
        ("/%762/a/manifests/t", "a"),
        ("/v2/v2/manifests/t", "v2"),
        ("/v2/a/manifests/manifests/t", "a/manifests"),
        ("/v2/a/blobs/uploads/manifests/t", "a/blobs/uploads"),
        ("/v2/tags/list/manifests/t", "tags/list"),
        # The paths below must not reach `a`, `b` or `a/b`, as they would if decoded too early.
        ("/v2/a%2Fb/manifests/t", 400),
        ("/v2/a%2fb/manifests/t", 400),
        ("/v2/a%2Fmanifests%2Ft", 400),
        ("/v2/a/manifests%2Ft", 400),
        ("/v2/x/../a/manifests/t", 400),
        ("/v2/x/%2e%2e/a/manifests/t", 400),
        ("/v2/x%2F..%2Fa/manifests/t", 400),
        ("/v2/a/../b/manifests/t", 400),
        ("/v2/./a/manifests/t", 400),
        ("/v2//a/manifests/t", 400),
        ("//v2/a/manifests/t", 400),
        ("/v2/a//manifests/t", 400),
        ("/v2/a/manifests//t", 400),
        ("/v2/a/manifests/t%00", 400),
        ("/v2/a%00/manifests/t", 400),
        ("/v2/%00a/manifests/t", 400),
        ("/v2/a\\b/manifests/t", 400),
        ("/v2/a%5Cb/manifests/t", 400),
        ("/v2/a%20/manifests/t", 400),
        ("/v2/a%0A/manifests/t", 400),
        ("/v2/a%252Fb/manifests/t", 400),
        ("/v2/a;x/manifests/t", 400),
        ("/v2/a;x=1/manifests/t", 400),
        ("/v2/;/a/manifests/t", 400),
        ("/v2/A/manifests/t", 400),
        ("/v2/a%C3%A9/manifests/t", 400),
        ("/v2/\u00e9/manifests/t", 400),
        ("/v2/a%/manifests/t", 400),
        ("/v2/a/manifests/t/", 404),
        ("/v2/a/manifests/", 404),
        ("/v2/a/manifests/t;x", 404),
        ("/v2/a/manifests/T", 404),
        ("/V2/a/manifests/t", 404),
        ("/v2/a/Manifests/t", 404),
        ("/v2/manifests/t", 404),
        ("/a/manifests/t", 404),
        ("/v1/a/manifests/t", 404),
    ):
        exchange = await api.speak("GET", target).finish()
        if isinstance(name, int):
            assert exchange.status == name, target
            [error] = json.loads(exchange.body)["errors"]
            assert error["code"] in {"NAME_INVALID", "MANIFEST_UNKNOWN", "UNSUPPORTED"}, target
            assert (error["code"] == "NAME_INVALID") == (name == 400), target
        else:
            assert exchange.status == 200, target
            assert json.loads(exchange.body)["annotations"] == {"name": name}, target


@pytest.mark.anyio
async def test_1_the_base_answers_with_and_without_a_slash(api: Api) -> None:
    for target in ("/v2", "/v2/", "/%76%32", "/v%32/"):
        exchange = await api.speak("GET", target).finish()
        assert (exchange.status, exchange.body) == (200, b"{}"), target
    for target in ("/v2/.", "/v2/..", "//v2/", "/v2//", "/v2%2F", "/v2;x", "/V2/"):
        exchange = await api.speak("GET", target).finish()
        assert exchange.status in {400, 404}, target
        assert json.loads(exchange.body)["errors"]


@pytest.mark.anyio
async def test_a_digest_may_be_escaped_everywhere(api: Api) -> None:
    digest = str(DIGEST).replace(":", "%3a")
    await api.push_blob("a", b"{}")
    blob = str(Digest.of(b"{}")).replace(":", "%3A")
    for method, target, status in (
        ("GET", f"/v2/a/blobs/{blob}", 200),
        ("HEAD", f"/v2/a/blobs/{blob}", 200),
        ("PUT", f"/v2/a/manifests/{digest}", 201),
        ("GET", f"/v2/a/manifests/{digest}", 200),
        ("GET", f"/v2/a/referrers/{digest}", 200),
        ("DELETE", f"/v2/a/manifests/{digest}", 202),
        ("DELETE", f"/v2/a/blobs/{blob}", 202),
    ):
        exchange = await api.speak(method, target).finish(RAW if method == "PUT" else b"")
        assert exchange.status == status, (method, target)


@pytest.mark.anyio
async def test_the_rightmost_word_splits_a_path(api: Api) -> None:
    """Repository names may contain any word that is also part of an endpoint path."""
    for name in ("blobs", "manifests", "uploads", "tags", "tags/list", "referrers", "v2/v2",
                 "a/blobs", "a/manifests/b", "a/blobs/uploads", "a/tags/list", "a/referrers/b",
                 "blobs/uploads"):  # fmt: skip
        digest = await api.push_blob(name, name.encode())
        assert (await api.http.get(f"/v2/{name}/blobs/{digest}")).content == name.encode()
        location = await api.start_upload(name)
        assert location.startswith(f"/v2/{name}/blobs/uploads/")
        assert (await api.http.get(location)).status_code == 204
        raw = index_manifest([], annotations={"name": name})
        assert (await api.put_manifest(name, "list", raw)).status_code == 201
        assert (await api.http.get(f"/v2/{name}/manifests/list")).content == raw
        answer = await api.http.get(f"/v2/{name}/tags/list")
        assert answer.json() == {"name": name, "tags": ["list"]}
        answer = await api.http.get(f"/v2/{name}/referrers/{Digest.of(raw)}")
        assert answer.json()["manifests"] == []
