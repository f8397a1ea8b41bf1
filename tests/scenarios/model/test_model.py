"""Tests of random histories of a registry against a model of dictionaries, on each database."""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from registry.metadata.content import tags, uploads
from registry.metadata.content.manifests import StoredManifest
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.oci.names import RepositoryName
from registry.oci.references import Reference
from registry.services.content.manifests import Manifests
from tests.scenarios.model.machine import Place
from tests.scenarios.model.operator_rules import Registries
from tests.scenarios.model.world import Clock

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))

PROFILE = settings(
    max_examples=15 * SOAK,
    # The same histories each time by default. A soak run draws new ones.
    derandomize=SOAK == 1,
    database=None,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def play(place: Place, movable_clock: Clock, profile: settings) -> None:
    run_state_machine_as_test(lambda: Registries(place, movable_clock), settings=profile)  # type: ignore[arg-type]


@pytest.mark.soak
@pytest.mark.timeout(900 + 60 * SOAK)
def test_registry_is_as_the_model(place: Place, movable_clock: Clock) -> None:
    play(place, movable_clock, PROFILE)


# Negative controls: with a rule of the registry broken, the machine must notice it.


def _nothing(*_: object, **__: object) -> None:
    """Replace a broken function: do nothing."""


def _leave_tags(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tags, "delete_all_of", _nothing)


def _forget_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pending_deletions, "insert", _nothing)


def _tell_no_deletion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tags, "_record_delete", _nothing)


def _queue_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Transaction, "queue_for_gc", _nothing)


def _share_sessions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UploadRow, "belongs_to", lambda *_: True)
    patch.setattr(
        uploads, "find_own", lambda tx, _name, _principal, session: uploads.find(tx, session)
    )


def _remember_without_looking(patch: pytest.MonkeyPatch) -> None:
    get = Manifests.get
    seen: dict[object, StoredManifest] = {}

    async def remember(
        self: Manifests, name: RepositoryName, at: Reference, since: float
    ) -> StoredManifest:
        if (self, name, at) not in seen:
            seen[self, name, at] = await get(self, name, at, since)
        return seen[self, name, at]

    patch.setattr(Manifests, "get", remember)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("break_it", "found"),
    [
        (_leave_tags, "DELETE .*UNAVAILABLE"),
        (_forget_keys, "an object without an owner"),
        (_tell_no_deletion, "the feed tells otherwise"),
        (_queue_nothing, "is lost"),
        (_share_sessions, "/uploads/"),
        (_remember_without_looking, "GET .*/manifests/"),
    ],
)
def test_the_machine_can_fail(
    break_it: Callable[[pytest.MonkeyPatch], None],
    found: str,
    embedded: Place,
    movable_clock: Clock,
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
        play(embedded, movable_clock, quick)
