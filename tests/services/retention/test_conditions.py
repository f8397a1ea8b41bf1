"""The declaration of the conditions of a rule, from which all their other forms are made."""

import msgspec
import pytest
import sqlalchemy as sa

from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, InputInvalidError, PatternInvalidError
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.services.retention.condition_fields import FIELDS, NewestBy
from registry.services.retention.conditions import Conditions
from registry.services.retention.retention import Retention
from registry.services.retention.rules import RetentionRules
from tests.metadata.rows import image
from tests.services.retention.histories import list_tags, push, set_rule, write
from tests.support.accounts import OPERATOR

EVERYTHING = Conditions(
    keep=("v*", "latest"),
    keep_newest=3,
    by=NewestBy.PULL,
    keep_per_minor=2,
    drop=("*",),
    drop_not_pulled="90d",
    drop_untagged="7d",
)


def test_every_field_is_declared() -> None:
    assert Conditions.__struct_fields__ == tuple(FIELDS)


def test_every_field_is_shown_and_kept_apart() -> None:
    assert EVERYTHING.list_given().keys() == FIELDS.keys(), "give the new field a value here"
    assert EVERYTHING.describe() == (
        "keep v* latest; keep the newest 3 by pull; keep the last 2 of each minor version; "
        "drop *; drop what was not pulled for 90d; drop what was untagged for 7d"
    )
    kept = EVERYTHING.keep_only()
    assert not kept.drops
    assert {name for name in EVERYTHING.list_given() if name not in kept.list_given()} == {
        "drop",
        "drop_not_pulled",
        "drop_untagged",
    }


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.drops])
def test_each_condition_that_drops_makes_the_rule_drop(name: str) -> None:
    assert Conditions(**{name: EVERYTHING.values()[name]}).drops


def test_conditions_survive_their_json() -> None:
    stored = msgspec.json.encode(EVERYTHING.list_given())
    assert msgspec.json.decode(stored, type=Conditions) == EVERYTHING
    assert msgspec.json.decode(b"{}", type=Conditions) == Conditions()


def test_the_same_duration_is_stored_in_one_form() -> None:
    assert Conditions(drop_untagged="24h").normalize() == Conditions(drop_untagged="1d")


@pytest.mark.parametrize(
    ("conditions", "error", "message"),
    [
        (Conditions(), InputInvalidError, "no rules given"),
        (Conditions(by=NewestBy.PULL), InputInvalidError, "no rules given"),
        (Conditions(by=NewestBy.PULL, drop=("x",)), InputInvalidError, "requires `keep_newest`"),
        (Conditions(drop_untagged="soon"), InputInvalidError, "drop_untagged: 'soon' is not a"),
        (Conditions(keep=("a/b",)), PatternInvalidError, "invalid tag pattern"),
    ],
)
def test_invalid_conditions_are_refused(
    conditions: Conditions, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        conditions.normalize()


@pytest.mark.anyio
async def test_rules_with_conditions_of_a_newer_version_drop_nothing(database: Database) -> None:
    await push(database, image("1"), "v1")
    await set_rule(database, drop="*")
    newer = {"conditions": '{"drop":["*"],"keep_signed":true}'}
    await write(database, lambda tx: tx.execute(sa.update(tables.retention_rules).values(newer)))
    retention = Retention(database, interval=3600, grace=86_400)
    with pytest.raises(ConflictError, match=r"nothing is dropped: .*keep_signed"):
        await retention.work()
    assert await list_tags(database) == ["v1"]
    rules = RetentionRules(database, interval=3600)
    # The rules can still be removed, and set again.
    await rules.remove(RepositoryPattern.parse("**"), OPERATOR)
    await set_rule(database, drop="*")
    while await retention.work():
        pass
    assert await list_tags(database) == []
