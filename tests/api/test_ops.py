"""Health, readiness, metrics, the page at `/`, and request IDs."""

import re

import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from storage.errors import StoreUnavailableError
from tests.api.conftest import SERVED, Api
from tests.support.kit import codes, index_manifest

pytestmark = pytest.mark.anyio
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def driver() -> str:
    return "memory"


async def fail_database(*_: object, **__: object) -> None:
    raise DatabaseUnavailableError("the database is unavailable")


# Health and readiness


async def test_healthz_answers_whatever_is_wrong(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        answer = await api.http.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
        monkeypatch.setattr(api.opened.database, "read", fail_database)
        api.opened.registry.health.draining = True


async def test_readyz_is_ready_when_all_answers(api: Api) -> None:
    answer = await api.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_readyz_not_ready_while_shutting_down(api: Api) -> None:
    api.opened.registry.health.draining = True
    answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"].isdigit()
    assert answer.json() == {"status": "not ready", "problems": {"server": "shutting down"}}
    assert (await api.http.get("/v2/")).status_code == 200  # requests are still served


async def test_readyz_names_all_that_is_wrong(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_store() -> None:
        raise StoreUnavailableError("the store cannot be reached")

    monkeypatch.setattr(api.opened.database, "read", fail_database)
    monkeypatch.setattr(api.opened.driver, "check", fail_store)
    answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"] == {
        "database": "the database is unavailable",
        "storage": "the store cannot be reached",
    }
    monkeypatch.undo()
    assert (await api.http.get("/readyz")).status_code == 200


async def test_readyz_not_ready_on_a_schema_of_another_version(api: Api) -> None:
    newer = sa.update(tables.schema_version).values(version=99, min_reader=99)

    def upgrade(tx: Transaction) -> None:
        tx.execute(newer)

    await api.opened.database.write(upgrade, actor="test")
    answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"].keys() == {"database"}


# Metrics


async def test_metrics_count_by_route_not_by_path(api: Api) -> None:
    await api.put_manifest("team/secret", "t", index_manifest([]))
    await api.http.get("/v2/team/secret/manifests/t")
    await api.http.get("/v2/no such path")
    answer = await api.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert re.search(
        r'^moorage_requests_total\{method="GET",'
        r'route="/v2/\{name:path\}/manifests/\{reference\}",status="200"\} [1-9]',
        answer.text,
        re.MULTILINE,
    )
    assert re.search(r"^moorage_blobs_damaged 0\.0$", answer.text, re.MULTILINE)
    assert "secret" not in answer.text
    assert "no such" not in answer.text


async def test_metrics_do_not_grow_with_what_clients_invent(api: Api) -> None:
    for method in ("BREW", "PROPFIND", "X" * 50):
        await api.http.request(method, "/v2/a/tags/list")
        await api.http.request(method, f"/{method}")
    text = (await api.http.get("/metrics")).text
    assert 'method="other"' in text
    assert "BREW" not in text
    assert "PROPFIND" not in text


async def test_metrics_are_there_when_the_database_is_not(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.opened.database, "read", fail_database)
    assert (await api.http.get("/v2/a/manifests/t")).status_code == 503
    answer = await api.http.get("/metrics")
    assert answer.status_code == 200
    assert re.search(r"^moorage_database_errors_total [1-9]", answer.text, re.MULTILINE)


# The page


@SQLITE
async def test_page_shows_the_host_as_text(api: Api) -> None:
    for host, shown in (
        ("registry.example:5000", "docker push registry.example:5000/IMAGE"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;/IMAGE"),
        ("\"><img src=x onerror='x'>", "&quot;&gt;&lt;img src=x onerror=&#x27;x&#x27;&gt;/IMAGE"),
        ("{host}{0}%s&amp;", "{host}{0}%s&amp;amp;/IMAGE"),
    ):
        answer = await api.http.get("/", headers={"Host": host})
        if SERVED and answer.status_code == 400:
            continue  # the server rejects this as a host
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert shown in answer.text
        assert answer.text.count("<script") == answer.text.count("<img") == 0
    exchange = await api.speak("GET", "/").finish()
    assert b"localhost:5000/IMAGE" in exchange.body


@SQLITE
async def test_ops_take_get_and_head_alone(api: Api) -> None:
    for path in ("/", "/healthz", "/readyz", "/metrics"):
        assert (await api.http.head(path)).status_code == 200
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await api.http.request(method, path)
            assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
            assert answer.headers["Allow"] == "GET, HEAD"


@SQLITE
async def test_ops_are_not_part_of_the_registry_api(api: Api) -> None:
    for path in ("/", "/healthz", "/readyz", "/metrics", "/nothing"):
        answer = await api.http.get(path)
        assert "Docker-Distribution-API-Version" not in answer.headers
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


# Request ids


@SQLITE
async def test_a_good_request_id_is_echoed(api: Api) -> None:
    for given in ("a", "0123-abc_DEF.9", "x" * 64):
        for path in ("/", "/v2/", "/v2/a/manifests/absent", "/v2/a%2Fb", "/nothing"):
            answer = await api.http.get(path, headers={"X-Request-Id": given})
            assert answer.headers["X-Request-Id"] == given


@SQLITE
async def test_a_bad_request_id_is_replaced(api: Api) -> None:
    seen = set()
    for given in (None, "", "x" * 65, "a b", "a;b", "<b>", "a,b", "\u00e4", "a\tb", "'", "a\n"):
        headers = {} if given is None else {"X-Request-Id": given}
        exchange = await api.speak("GET", "/v2/", headers).finish()
        made = exchange.headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made), given
        seen.add(made)
    assert len(seen) == 11
