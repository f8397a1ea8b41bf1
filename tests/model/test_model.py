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
from registry.metadata import doomed, migrate, repositories, tags
from registry.metadata.manifests import ManifestRow
from registry.oci.names import RepositoryName
from registry.oci.references import Reference
from registry.services import uploads
from registry.services.manifests import Manifests
from tests.model.machine import Machine, Place
from tests.model.operator_rules import Registries
from tests.model.world import Clock
from tests.support.postgres import Cluster

MEMORY = Path("/dev/shm")  # noqa: S108
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
    # Syncing is not under test here: where memory can be a folder, the data is there.
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
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
@pytest.mark.timeout(900 + 60 * SOAK)
def test_registry_is_as_the_model(
    place: Place, factory: Callable[[Place], Callable[[], Machine]]
) -> None:
    run_state_machine_as_test(factory(place), settings=PROFILE)  # type: ignore[arg-type]


# The machine must be able to fail: with a rule of the registry broken, it finds that.


def _nothing(*_: object, **__: object) -> None:
    """Take the place of what is broken."""


def _leave_tags(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tags, "delete_all_of", _nothing)


def _leave_empty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repositories, "remove_if_empty", _nothing)


def _forget_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doomed, "insert", _nothing)


def _tell_no_deletion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tags, "_record_delete", _nothing)


def _share_sessions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(uploads, "_belongs", lambda *_: True)


def _publish_before_naming(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        pass

    patch.setattr(uploads.Uploads, "_name_key", nothing)


def _cache_without_looking(patch: pytest.MonkeyPatch) -> None:
    stat = Manifests.stat
    cache: dict[object, ManifestRow] = {}

    async def remember(self: Manifests, name: RepositoryName, at: Reference) -> ManifestRow:
        if (self, name, at) not in cache:
            cache[self, name, at] = await stat(self, name, at)
        return cache[self, name, at]

    patch.setattr(Manifests, "stat", remember)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("break_it", "found"),
    [
        (_leave_tags, "DELETE .*UNAVAILABLE"),
        (_leave_empty, "catalogue"),
        (_forget_keys, "an object without an owner"),
        (_tell_no_deletion, "the feed tells otherwise"),
        (_share_sessions, "BLOB_UPLOAD_UNKNOWN|/uploads/"),
        (_publish_before_naming, "an object without an owner"),
        (_cache_without_looking, "/manifests/"),
    ],
)
def test_the_machine_can_fail(
    break_it: Callable[[pytest.MonkeyPatch], None],
    found: str,
    tmp_path: Path,
    factory: Callable[[Place], Callable[[], Machine]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_it(monkeypatch)
    quick = settings(
        PROFILE,
        max_examples=300,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        print_blob=False,
    )
    with pytest.raises(AssertionError, match=found):
        run_state_machine_as_test(factory(_embedded(tmp_path)), settings=quick)  # type: ignore[arg-type]
