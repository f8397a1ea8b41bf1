"""Random histories of a registry against a model of dictionaries, on each database."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from registry import clock
from registry.metadata import migrate
from tests.model.machine import Machine, Place
from tests.model.operator_rules import Registries
from tests.model.world import Clock
from tests.support.postgres import Cluster

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))

PROFILE = settings(
    max_examples=15 * SOAK,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return _embedded(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgres")

    @contextlib.contextmanager
    def serve() -> Iterator[tuple[str, Path]]:
        with _folder(tmp_path) as folder, cluster.database() as url:
            yield url, folder

    return serve


def _embedded(tmp_path: Path) -> Place:
    template = tmp_path / "template.db"
    migrate.upgrade(f"sqlite:///{template}")

    @contextlib.contextmanager
    def embed() -> Iterator[tuple[str, Path]]:
        with _folder(tmp_path) as folder:
            shutil.copyfile(template, folder / "moorage.db")
            yield f"sqlite:///{folder}/moorage.db", folder

    return embed


@contextlib.contextmanager
def _folder(tmp_path: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Place], Callable[[], Machine]]:
    """Makes machines whose registries live by a clock of the test's."""

    def of(place: Place) -> Callable[[], Machine]:
        def make() -> Machine:
            hands = Clock()
            monkeypatch.setattr(clock, "now", hands.now)
            return Registries(place, hands)

        return make

    return of


@pytest.mark.soak
@pytest.mark.timeout(300 * SOAK)
def test_registry_is_as_the_model(
    place: Place, factory: Callable[[Place], Callable[[], Machine]]
) -> None:
    run_state_machine_as_test(factory(place), settings=PROFILE)
