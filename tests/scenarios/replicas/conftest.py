"""Replicas: shared by tests that do not stop or change them, or owned by one test."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.kit import Kit
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas, kit_of, running_replicas
from tests.support.servers.seaweed import Seaweed

Start = Callable[..., Replicas]


@pytest.fixture(scope="session")
def replicas(
    postgres: Cluster, seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Yield two replicas, for all tests that neither stop nor change them."""
    with (
        postgres.database() as url,
        running_replicas(
            Replicas(tmp_path_factory.mktemp("replicas"), url, seaweed.bucket())
        ) as running,
    ):
        yield running


@pytest.fixture
def own_replicas(
    postgres: Cluster, seaweed: Seaweed, tmp_path: Path
) -> Iterator[Callable[..., Replicas]]:
    """Return a function that makes replicas, not started, with which the test may do anything."""
    with ExitStack() as stack:

        def make(**settings: str) -> Replicas:
            url = stack.enter_context(postgres.database())
            return Replicas(tmp_path, url, seaweed.bucket(), settings)

        yield make


@pytest.fixture
async def a(replicas: Replicas) -> AsyncIterator[Kit]:
    async with kit_of(replicas.a) as kit:
        yield kit


@pytest.fixture
async def b(replicas: Replicas) -> AsyncIterator[Kit]:
    async with kit_of(replicas.b) as kit:
        yield kit


@pytest.fixture
async def front(replicas: Replicas) -> AsyncIterator[Kit]:
    """Yield a client of nginx, which sends requests to both replicas in turn."""
    async with kit_of(replicas.front) as kit:
        yield kit
