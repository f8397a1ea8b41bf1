"""Endpoint 11: mount a blob of another repository instead of uploading it."""

import httpx
import pytest

from registry.auth.caller import Caller
from registry.auth.policy.principals import ANONYMOUS
from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import (
    codes,
    count_sessions,
    list_stored,
    require_created,
    require_session,
)

pytestmark = pytest.mark.anyio

DATA = b"a layer that many images share"
DIGEST = Digest.of(DATA)
NAME = "team/app"
MEMORY = pytest.mark.parametrize("driver", ["memory"])
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def mount(
    api: Api, digest: Digest | str, source: str | None = None, **more: str
) -> httpx.Response:
    query = {"mount": str(digest), **({"from": source} if source else {}), **more}
    return await api.http.post(f"/v2/{NAME}/blobs/uploads/", params=query)


async def require_upload(api: Api, answer: httpx.Response, *, then_push: bool = True) -> None:
    """Check that the response starts an ordinary session, gives no reason, and links nothing."""
    location = require_session(answer, 202, NAME, 0)
    assert answer.content == b""
    assert "Docker-Content-Digest" not in answer.headers
    assert (await api.http.head(f"/v2/{NAME}/blobs/{DIGEST}")).status_code == 404
    if then_push:
        done = await api.http.put(location, params={"digest": str(DIGEST)}, content=DATA)
        require_created(done, NAME, DIGEST)


async def catalogue(api: Api) -> list[str]:
    return list((await api.http.get("/v2/_catalog")).json()["repositories"])


def deny_pulls_of(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for question in ("may_pull", "could_pull"):
        monkeypatch.setattr(Caller, question, lambda _self, name: str(name) not in names)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_11_links_the_blob_of_the_source(api: Api, algorithm: str) -> None:
    digest = await api.push_blob("source", DATA, algorithm)
    stored = list_stored(api.opened.driver)
    answer = await mount(api, digest, "source")
    require_created(answer, NAME, digest)
    assert "Docker-Upload-UUID" not in answer.headers
    assert "Range" not in answer.headers
    assert (await api.http.get(answer.headers["Location"])).content == DATA
    assert list_stored(api.opened.driver) == stored
    assert await count_sessions(api.opened.database) == 0
    assert await catalogue(api) == ["source", NAME]


async def test_11_a_mounted_blob_is_the_repositorys_own(api: Api) -> None:
    """It outlives the source, and can be referenced, mounted from and deleted."""
    digest = await api.push_blob("source", DATA)
    require_created(await mount(api, digest, "source"), NAME, digest)
    assert (await api.http.delete(f"/v2/source/blobs/{digest}")).status_code == 202
    assert (await api.http.get(f"/v2/{NAME}/blobs/{digest}")).content == DATA
    onward = await api.http.post(
        "/v2/onward/blobs/uploads/", params={"mount": str(digest), "from": NAME}
    )
    require_created(onward, "onward", digest)
    assert (await api.http.delete(f"/v2/{NAME}/blobs/{digest}")).status_code == 202
    assert (await api.http.get(f"/v2/{NAME}/blobs/{digest}")).status_code == 404
    assert (await api.http.get(f"/v2/onward/blobs/{digest}")).content == DATA


@MEMORY
async def test_11_what_is_linked_here_already_may_be_mounted_again(api: Api) -> None:
    await api.push_blob("source", DATA)
    await api.push_blob(NAME, DATA)
    for source in ("source", NAME, None):
        require_created(await mount(api, DIGEST, source), NAME, DIGEST)


@MEMORY
async def test_11_from_may_be_left_out(api: Api) -> None:
    await api.push_blob("somewhere/else", DATA)
    require_created(await mount(api, DIGEST), NAME, DIGEST)
    assert (await api.http.get(f"/v2/{NAME}/blobs/{DIGEST}")).content == DATA


@MEMORY
async def test_11_other_parameters_are_ignored(api: Api) -> None:
    await api.push_blob("source", DATA)
    answer = await mount(api, DIGEST, "source", origin="registry/team/app")  # crane
    require_created(answer, NAME, DIGEST)


async def test_11_without_a_blob_to_link_a_session_begins(api: Api) -> None:
    await api.push_blob("source", b"another blob")
    for source in ("source", "no/such/repository", None, NAME):
        await require_upload(api, await mount(api, DIGEST, source), then_push=False)
    assert await catalogue(api) == ["source"]
    await require_upload(api, await mount(api, DIGEST, "source"))


@MEMORY
async def test_11_only_the_named_source_counts(api: Api) -> None:
    await api.push_blob("has/it", DATA)
    await api.push_blob("has/not", b"another blob")
    await require_upload(api, await mount(api, DIGEST, "has/not"))


@MEMORY
async def test_11_a_source_that_was_unlinked_or_deleted_is_none(api: Api) -> None:
    for name in ("unlinked", "deleted"):
        await api.push_blob(name, DATA)
        await api.push_blob(name, b"another blob")
    await api.http.delete(f"/v2/unlinked/blobs/{DIGEST}")
    await api.opened.registry.repositories.delete(RepositoryName("deleted"), ANONYMOUS)
    for source in ("unlinked", "deleted", None):
        await require_upload(api, await mount(api, DIGEST, source), then_push=False)


@MEMORY
async def test_11_denied_and_missing_look_the_same(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.push_blob("secret", DATA)
    await api.push_blob("source", b"another blob")
    deny_pulls_of(monkeypatch, "secret")
    seen = []
    for source in ("secret", "source", "no/such/repository", None):
        answer = await mount(api, DIGEST, source)
        await require_upload(api, answer, then_push=False)
        upload = answer.headers["Docker-Upload-UUID"]
        unlike = {"x-request-id": "", "docker-upload-uuid": "", "location": ""}
        seen.append({**answer.headers, **unlike})
        assert upload in answer.headers["Location"]
    assert seen == seen[:1] * 4
    assert await catalogue(api) == ["secret", "source"]  # no repository was created


@MEMORY
async def test_11_without_from_only_what_the_caller_may_pull_counts(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.push_blob("a/secret", DATA)
    await api.push_blob("z/secret", DATA)
    deny_pulls_of(monkeypatch, "a/secret", "z/secret")
    await require_upload(api, await mount(api, DIGEST), then_push=False)
    await api.push_blob("m/public", DATA)
    require_created(await mount(api, DIGEST), NAME, DIGEST)


@SQLITE
@MEMORY
async def test_11_without_from_all_that_a_token_names_are_looked_at(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"n{number:03}" for number in range(201)]
    await api.push_blob(names[0], DATA)
    for name in names[1:]:
        source, target = RepositoryName(names[0]), RepositoryName(name)
        blobs = api.opened.registry.blobs
        assert await blobs.mount(target, DIGEST, source, ANONYMOUS, lambda _: True)
    deny_pulls_of(monkeypatch, *names[:-1])
    monkeypatch.setattr(Caller, "named_repositories", [RepositoryName(names[0])])
    await require_upload(api, await mount(api, DIGEST), then_push=False)
    monkeypatch.setattr(Caller, "named_repositories", [RepositoryName(names[-1])])
    require_created(await mount(api, DIGEST), NAME, DIGEST)


@MEMORY
@SQLITE
async def test_11_a_malformed_digest_is_refused(api: Api) -> None:
    await api.push_blob("source", DATA)
    for digest in ("sha256:beef", "latest", f"{DIGEST}\0", DIGEST.hex, "md5:", "MD5:00"):
        answer = await mount(api, digest, "source")
        assert answer.status_code == 400, digest
        assert codes(answer) == ["DIGEST_INVALID"]
    assert await count_sessions(api.opened.database) == 0


@MEMORY
@SQLITE
async def test_11_what_cannot_be_a_source_begins_an_upload(api: Api) -> None:
    """A mount only saves an upload, so an invalid source must not fail the push."""
    await api.push_blob("source", DATA)
    long = "a/" * 127 + "aa"
    for source in ("UPPER", "../source", "source/", "/source", "source\0", "localhost:5000/source",
                   "registry.example.org:443/source", "source@x", long):  # fmt: skip
        await require_upload(api, await mount(api, DIGEST, source), then_push=False)
    for digest in ("md5:" + "0" * 32, "blake3:00", "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7"):
        await require_upload(api, await mount(api, digest, "source"), then_push=False)
    query = {"mount": "blake3:00", "digest": str(DIGEST)}
    answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/", params=query, content=DATA)
    await require_upload(api, answer, then_push=False)


@MEMORY
@SQLITE
async def test_11_a_mount_that_fails_does_not_read_the_body_as_the_blob(api: Api) -> None:
    answer = await api.http.post(
        f"/v2/{NAME}/blobs/uploads/",
        params={"mount": str(DIGEST), "from": "nowhere", "digest": str(DIGEST)},
        content=DATA,
    )
    await require_upload(api, answer)


@pytest.mark.parametrize("driver", ["local"])
async def test_11_a_source_that_loses_the_blob_meanwhile_leaves_no_trace(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.push_blob("source", DATA)
    await api.push_blob("source", b"another blob")
    stat = api.opened.driver.stat

    async def then_unlink(key: str) -> int:
        """Unlink the blob in the source after the bytes were checked and before the link."""
        monkeypatch.setattr(api.opened.driver, "stat", stat)
        assert (await api.http.delete(f"/v2/source/blobs/{DIGEST}")).status_code == 202
        return await stat(key)

    monkeypatch.setattr(api.opened.driver, "stat", then_unlink)
    await require_upload(api, await mount(api, DIGEST, "source"), then_push=False)
    assert await catalogue(api) == ["source"]


async def test_11_an_empty_blob_can_be_mounted(api: Api) -> None:
    digest = await api.push_blob("source", b"")
    require_created(await mount(api, digest, "source"), NAME, digest)
    assert (await api.http.get(f"/v2/{NAME}/blobs/{digest}")).content == b""
