"""Faults that random histories seldom reach: a given history finds each in a few steps."""

from collections.abc import Callable, Iterator

import pytest

from registry.metadata.content import repositories
from registry.metadata.content.uploads import UploadRow
from registry.services.content.publication import Publication
from tests.scenarios.model.content import BYTES_OF, REPOSITORIES
from tests.scenarios.model.machine import Place
from tests.scenarios.model.operator_rules import Registries
from tests.scenarios.model.world import Clock

NAME = REPOSITORIES[0]
BLOB = next(iter(BYTES_OF))
STEPS = 12
"""More changes of the store and the database than the push of a blob makes."""


@pytest.fixture
def machine(embedded: Place, movable_clock: Clock) -> Iterator[Registries]:
    made = Registries(embedded, movable_clock)
    yield made
    made.failed = True  # the histories look themselves
    made.teardown()


def empty_a_repository(machine: Registries) -> None:
    machine.push_blob(dies_after=None, name=NAME, digest=BLOB, right=True)
    machine.delete_blob(dies_after=None, name=NAME, digest=BLOB, pick=0)
    machine.see_catalog()


def die_at_each_step_of_a_push(machine: Registries) -> None:
    for dies_after in range(STEPS):
        machine.push_blob(dies_after=dies_after, name=NAME, digest=BLOB, right=True)
        machine.everything_is_as_the_model_says()
        machine.delete_blob(dies_after=None, name=NAME, digest=BLOB, pick=0)
        machine.everything_is_as_the_model_says()


def _leave_empty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repositories, "remove_if_empty", lambda *_: None)


def _publish_before_naming(patch: pytest.MonkeyPatch) -> None:
    async def name_nothing(_: Publication, row: UploadRow, *__: object, **___: object) -> UploadRow:
        return row

    patch.setattr(Publication, "_name_key", name_nothing)


@pytest.mark.parametrize("play", [empty_a_repository, die_at_each_step_of_a_push])
def test_the_registry_is_as_the_model(
    machine: Registries, play: Callable[[Registries], None]
) -> None:
    play(machine)


@pytest.mark.parametrize(
    ("break_it", "play", "found"),
    [
        (_leave_empty, empty_a_repository, "catalog"),
        (_publish_before_naming, die_at_each_step_of_a_push, "an object without an owner"),
    ],
)
def test_the_fault_is_found(
    break_it: Callable[[pytest.MonkeyPatch], None],
    play: Callable[[Registries], None],
    found: str,
    machine: Registries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_it(monkeypatch)
    with pytest.raises(AssertionError, match=found):
        play(machine)
