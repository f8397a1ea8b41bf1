"""Replicas, shared by the tests that leave them as they were, or a test's own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.kit import Kit
from tests.support.postgres import Cluster
from tests.support.replicas import Replicas, kit_of, running_replicas
from tests.support.seaweed import Seaweed

Start = Callable[..., Replicas]


@pytest.fixture(scope="session")
def replicas(
    postgres: Cluster, seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Two of them for all tests that neither stop nor change them."""
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
    """Makes replicas that the test may do anything to; not started."""
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
    """Whoever asks nginx: each request goes to the other replica than the one before."""
    async with kit_of(replicas.front) as kit:
        yield kit
