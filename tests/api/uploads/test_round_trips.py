"""Tests of the cost of a push on PostgreSQL: round trips to the server."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from storage.digest import Digest
from tests.api.conftest import Started
from tests.api.uploads.helpers import DATA, NAME
from tests.support.kit import require_created, require_session
from tests.support.query_counter import QueryCounter, count_queries
from tests.support.servers.postgres import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("driver", ["local"])]

OTHER = b"another blob of the same repository"

AT_MOST = {"POST": 8, "PATCH": 5, "PUT": 15}
"""For a new blob of an existing repository, including BEGIN, COMMIT and the query of revisions."""


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[QueryCounter]:
    with count_queries(postgres.port) as running:
        yield running


@pytest.fixture
def database_url(postgres: Cluster, proxy: QueryCounter) -> Iterator[str]:
    with postgres.database() as url:
        yield (
            sa.make_url(url)
            .set(host="127.0.0.1", port=proxy.port)
            .render_as_string(hide_password=False)
        )


async def test_of_each_request(start_api: Started, proxy: QueryCounter) -> None:
    trips: dict[str, int] = {}
    async with start_api() as api:
        for data in (DATA, OTHER):  # the first blob opens connections and creates the repository
            digest = Digest.of(data)
            proxy.trips = 0
            answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/")
            trips["POST"], proxy.trips = proxy.trips, 0
            location = require_session(answer, 202, NAME, 0)
            answer = await api.http.patch(location, content=data)
            trips["PATCH"], proxy.trips = proxy.trips, 0
            require_session(answer, 202, NAME, len(data))
            answer = await api.http.put(location, params={"digest": str(digest)})
            trips["PUT"] = proxy.trips
            require_created(answer, NAME, digest)
    for method, most in AT_MOST.items():
        assert 1 < trips[method] <= most, trips
