"""Error responses have the form of the OCI specification and reveal no internal details."""

import inspect
import json
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from registry import errors
from registry.http.errors import SENTENCES, TABLE, error_response, find_entry
from registry.metadata.content import manifests
from storage import errors as storage_errors
from storage.digest import Digest, DigestInvalidError
from storage.errors import StoreError, StoreFullError, StoreUnavailableError
from tests.api.conftest import Api
from tests.support.kit import codes, index_manifest

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

RAW = index_manifest([])
DIGEST = Digest.of(RAW)

# OCI distribution-spec, Error Codes, with the statuses that Moorage uses.
STATUSES = {
    "BLOB_UNKNOWN": {404},
    "BLOB_UPLOAD_INVALID": {400, 409, 416},
    "BLOB_UPLOAD_UNKNOWN": {404},
    "DIGEST_INVALID": {400},
    "MANIFEST_BLOB_UNKNOWN": {400},
    "MANIFEST_INVALID": {400},
    "MANIFEST_UNKNOWN": {404},
    "NAME_INVALID": {400},
    "NAME_UNKNOWN": {404},
    # 416 is for ranges of blobs, for which the specification has no code.
    "SIZE_INVALID": {400, 413, 416},
    "UNAUTHORIZED": {401},
    "DENIED": {403, 412},
    # 404 is for unknown endpoints, for which the specification has no code.
    "UNSUPPORTED": {400, 404, 405, 414},
    "TOOMANYREQUESTS": {429},
}
BEYOND = {"UNAVAILABLE": {503, 507}}
# Codes of the admin API, which has no external specification.
OWN = {"INVALID": {400, 415}, "NOT_FOUND": {404}, "CONFLICT": {409}}

# Errors that end the start of the program, or are raised outside a request.
NEVER_ON_THE_WIRE = {
    errors.RegistryError,
    errors.BackupError,
    errors.ConfigError,
    errors.NotConfirmedError,
    errors.SchemaError,
}


@pytest.fixture
def driver() -> str:
    return "memory"


def classes_of(module: object, base: type[Exception]) -> Iterator[type[Exception]]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if issubclass(cls, base):
            yield cls


# Table of errors


def test_every_code_of_the_specification_is_used_with_its_statuses() -> None:
    used: dict[str, set[int]] = {}
    for wire in TABLE.values():
        used.setdefault(wire.code, set()).add(wire.status)
    assert used == STATUSES | BEYOND | OWN


def test_every_error_that_can_reach_the_wire_is_in_the_table() -> None:
    unknown = {
        cls
        for cls in classes_of(errors, errors.RegistryError)
        if find_entry(cls.__new__(cls)).code == "UNKNOWN"
    }
    assert unknown == NEVER_ON_THE_WIRE
    assert set(TABLE) >= {DigestInvalidError, StoreError}
    for cls in classes_of(storage_errors, StoreError):
        assert find_entry(cls()).code == "UNAVAILABLE"


def test_a_class_below_another_is_answered_as_itself() -> None:
    assert find_entry(errors.DatabaseFullError("")).status == 507
    assert find_entry(StoreFullError()).status == 507
    assert find_entry(StoreUnavailableError()).status == 503
    assert find_entry(errors.ConfigError("")).status == 500


def test_what_may_be_tried_again_says_when() -> None:
    for cls, wire in TABLE.items():
        assert (wire.status >= 500) == ("Retry-After" in dict(wire.headers)), cls
    assert int(error_response(StoreUnavailableError()).headers["Retry-After"]) > 0


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), errors.ConfigError("/etc/x")])
def test_what_the_table_does_not_know_is_500_and_says_nothing(error: Exception) -> None:
    response = error_response(error)
    assert response.status_code == 500
    [entry] = json.loads(bytes(response.body))["errors"]
    assert entry["code"] == "UNKNOWN"
    assert entry["detail"] is None
    assert "x" not in entry["message"].split()


def test_each_message_begins_with_the_sentence_that_clients_know() -> None:
    """The test suites of skopeo and podman expect this sentence; the reason follows it."""
    assert SENTENCES.keys() == STATUSES.keys() | BEYOND.keys() | {"UNKNOWN"}
    for cls, wire in TABLE.items():
        error = cls.__new__(cls)
        error.args = ("why",)
        error.__dict__ |= {"message": "why", "missing": [1], "allowed": [], "size": 1}
        error.__dict__ |= {"challenge": "Bearer", "retry_after": 1, "count": 1}
        for standard in (True, False):
            [entry] = json.loads(bytes(error_response(error, standard=standard).body))["errors"]
            if not standard or wire.code in OWN:  # the admin API has its own messages
                assert entry["message"] == "why"
            else:
                sentence = SENTENCES[wire.code].removesuffix(".")
                assert entry["message"].startswith(sentence), cls
                assert entry["message"].endswith(" why"), cls
    for error, message in (
        (errors.ManifestUnknownError("no tag v1 in a"), "manifest unknown: no tag v1 in a"),
        (
            errors.PageSizeInvalidError("n is a number"),
            "The operation is unsupported: n is a number",
        ),
        (errors.UnsupportedError(""), "The operation is unsupported."),
        (errors.UnauthorizedError("", "Bearer"), "authentication required"),
        (StoreUnavailableError(), "service unavailable"),
    ):
        assert json.loads(bytes(error_response(error).body))["errors"][0]["message"] == message


def test_one_entry_for_each_piece_that_is_missing() -> None:
    response = error_response(errors.ManifestContentMissingError(["sha256:a", "sha256:b"]))
    entries = json.loads(bytes(response.body))["errors"]
    assert [entry["detail"] for entry in entries] == [
        {"digest": "sha256:a"},
        {"digest": "sha256:b"},
    ]


# Endpoints and methods


ENDPOINTS = {
    "/v2/": "GET, HEAD",
    "/v2": "GET, HEAD",
    "/v2/_catalog": "GET",
    "/v2/a/tags/list": "GET",
    f"/v2/a/referrers/{DIGEST}": "GET",
    f"/v2/a/blobs/{DIGEST}": "DELETE, GET, HEAD",
    "/v2/a/blobs/uploads/": "POST",
    "/v2/a/blobs/uploads/0b30ed5c-90e1-4ae1-a4cb-4ee0b3d2f74c": "DELETE, GET, PATCH, PUT",
    "/v2/a/manifests/t": "DELETE, GET, HEAD, PUT",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"]


@SQLITE
@pytest.mark.anyio
async def test_a_method_that_an_endpoint_does_not_take_is_405(api: Api) -> None:
    for path, allow in ENDPOINTS.items():
        for method in METHODS:
            # httpx would change the method to upper case.
            reply = (await api.speak(method, path).finish()).answer()
            if method in allow.split(", "):
                assert reply.status_code != 405, (method, path)
                continue
            assert reply.status_code == 405, (method, path)
            assert reply.headers["Allow"] == allow
            if method != "HEAD":
                assert codes(reply) == ["UNSUPPORTED"]
                detail = reply.json()["errors"][0]["detail"]
                assert detail == {"allowed": allow.split(", ")}


@SQLITE
@pytest.mark.anyio
async def test_an_endpoint_that_there_is_not_is_404(api: Api) -> None:
    for path in ("/v2/x", "/v2/a/b", "/v2/a/tags", "/v2/a/tags/list/", "/v2/a/tags/list/x",
                 "/v2/_catalog/", "/v2/tags/list", "/v2/a/blobs/", "/v2/a/manifests/", "/v2/a/",
                 "/v2/manifests/t", "/v1/", "/v3/", "/token/", "/x", "/v2x"):  # fmt: skip
        for method in ("GET", "PUT", "POST", "DELETE"):
            reply = await api.http.request(method, path)
            assert (reply.status_code, codes(reply)) == (404, ["UNSUPPORTED"]), path
            assert reply.json()["errors"][0]["detail"] == {"path": path}
        assert (await api.speak("HEAD", path).finish()).body == b""


@SQLITE
@pytest.mark.anyio
async def test_every_refusal_below_v2_has_the_form_and_the_version(api: Api) -> None:
    digest = Digest.of(b"absent")
    upload = "/v2/a/blobs/uploads/0b30ed5c-90e1-4ae1-a4cb-4ee0b3d2f74c"
    for method, path, status, code in (
        ("GET", "/v2/A/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a%2Fb/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a/tags/list?n=x", 400, "UNSUPPORTED"),
        ("GET", f"/v2/a/blobs/{digest}", 404, "BLOB_UNKNOWN"),
        ("HEAD", f"/v2/a/blobs/{digest}", 404, ""),
        ("DELETE", f"/v2/a/blobs/{digest}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:a", 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/manifests/t", 404, "MANIFEST_UNKNOWN"),
        ("HEAD", "/v2/a/manifests/t", 404, ""),
        ("DELETE", "/v2/a/manifests/t", 404, "MANIFEST_UNKNOWN"),
        ("PUT", "/v2/a/manifests/t", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/.t", 400, "NAME_INVALID"),
        ("GET", "/v2/a/referrers/t", 400, "DIGEST_INVALID"),
        ("GET", upload, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", upload, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", f"{upload}?digest={digest}", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", f"{upload}?digest=x", 400, "DIGEST_INVALID"),
        ("PUT", f"{upload}?digest={digest}%00", 400, "DIGEST_INVALID"),
        ("PUT", upload, 400, "DIGEST_INVALID"),
        ("DELETE", upload, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/a/blobs/uploads/?digest=x", 400, "DIGEST_INVALID"),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest}%00", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha256%00", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?mount=x&from=b", 400, "DIGEST_INVALID"),
        ("POST", f"/v2/a/blobs/uploads/?mount={digest}%00&from=b", 400, "DIGEST_INVALID"),
    ):
        reply = (await api.speak(method, path).finish()).answer()
        assert reply.status_code == status, (method, path)
        assert reply.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        assert reply.headers["Content-Type"] == "application/json"
        if method == "HEAD":
            assert reply.content == b""
        else:
            assert codes(reply) == [code], (method, path)
            assert reply.headers["Content-Length"] == str(len(reply.content))


# Failures


SECRETS = ["SELECT", "manifests", "/var/lib", "hunter2", "Traceback", ".py", "psycopg"]


def require_discreet(reply: httpx.Response) -> None:
    for secret in SECRETS:
        assert secret not in reply.text
        assert secret not in str(reply.headers)


def failing(orig: BaseException) -> sa.exc.OperationalError:
    return sa.exc.OperationalError("SELECT manifests", {"password": "hunter2"}, orig)


@pytest.mark.anyio
async def test_a_bug_is_500_and_leaks_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("SELECT hunter2 from /var/lib/registry.py")

    monkeypatch.setattr(api.opened.registry.manifests, "get", broken)
    reply = await api.http.get("/v2/a/manifests/t", headers={"X-Request-Id": "find-me"})
    assert (reply.status_code, codes(reply)) == (500, ["UNKNOWN"])
    assert reply.headers["X-Request-Id"] == "find-me"
    require_discreet(reply)
    reply = (await api.speak("HEAD", "/v2/a/manifests/t").finish()).answer()
    assert (reply.status_code, reply.content) == (500, b"")


class SqliteFullError(Exception):
    """Error of the SQLite driver on a full disk."""

    sqlite_errorcode = 13


class PostgresFullError(Exception):
    """Error of the PostgreSQL driver on a full disk."""

    sqlstate = "53100"


@pytest.mark.parametrize(
    ("orig", "status"),
    [
        (Exception("/var/lib/moorage.db hunter2"), 503),
        (SqliteFullError("/var/lib"), 507),
        (PostgresFullError("/var/lib"), 507),
    ],
)
@pytest.mark.anyio
async def test_a_database_that_fails_is_no_500(
    api: Api, monkeypatch: pytest.MonkeyPatch, orig: Exception, status: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failing(orig)

    monkeypatch.setattr(manifests, "find_with_bytes", fail)
    monkeypatch.setattr(manifests, "put", fail)
    for method in ("GET", "PUT"):
        reply = await api.http.request(method, "/v2/a/manifests/t", content=RAW)
        assert (reply.status_code, codes(reply)) == (status, ["UNAVAILABLE"])
        assert reply.headers["Retry-After"].isdigit()
        require_discreet(reply)
    reply = (await api.speak("HEAD", "/v2/a/manifests/t").finish()).answer()
    assert (reply.status_code, reply.content) == (status, b"")
    assert reply.headers["Retry-After"].isdigit()
    monkeypatch.undo()
    assert (await api.put_manifest("a", "t", RAW)).status_code == 201


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.anyio
async def test_a_database_that_is_gone_is_503_until_it_is_back(api: Api, database_url: str) -> None:
    await api.put_manifest("a", "t", RAW)
    url = sa.make_url(database_url)
    admin = sa.create_engine(
        url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )

    def allow(connections: str) -> None:
        with admin.connect() as connection:
            alter = f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS {connections}"
            connection.execute(sa.text(alter))
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(sa.text(end), {"name": url.database})

    allow("false")
    for method in ("GET", "PUT", "DELETE"):
        reply = await api.http.request(method, "/v2/a/manifests/t", content=RAW)
        assert (reply.status_code, codes(reply)) == (503, ["UNAVAILABLE"])
        assert reply.headers["Retry-After"].isdigit()
        require_discreet(reply)
        assert str(url.database) not in reply.text
    allow("true")
    assert (await api.http.get("/v2/a/manifests/t")).content == RAW
    assert (await api.put_manifest("a", "t", RAW)).status_code == 201


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreUnavailableError("no answer"), 503), (StoreFullError("no room"), 507)],
)
@SQLITE
@pytest.mark.anyio
async def test_a_store_that_fails_is_no_500(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: StoreError, status: int
) -> None:
    async def fail(*_: object) -> None:
        raise error

    digest = await api.push_blob("a", b"blob")
    location = await api.start_upload("a")
    for method in ("open", "stat", "claim"):
        monkeypatch.setattr(api.opened.driver, method, fail)
    for method, path in (
        ("GET", f"/v2/a/blobs/{digest}"),
        ("HEAD", f"/v2/a/blobs/{digest}"),
        ("PATCH", location),
        ("PUT", f"{location}?digest={digest}"),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest}"),
        ("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a"),
    ):
        reply = (await api.speak(method, path).finish(b"blob")).answer()
        assert reply.status_code == status, (method, path)
        assert reply.headers["Retry-After"].isdigit()
        if method != "HEAD":
            assert codes(reply) == ["UNAVAILABLE"]
    monkeypatch.undo()
    assert (await api.http.get(f"/v2/a/blobs/{digest}")).content == b"blob"
    assert (await api.http.patch(location, content=b"x")).status_code == 202
