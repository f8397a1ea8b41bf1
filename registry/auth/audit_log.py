"""Writes the audit log: the event, its target, actor and address. It never contains secrets."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from registry.auth.client_address import ClientAddress
from registry.logs import cut
from registry.metadata.access import audit
from registry.metadata.engine.transaction import Transaction


class Event(StrEnum):
    """The kind of an event."""

    SIGN_IN_FAIL = "sign-in.fail"
    TOKEN_ISSUE = "token.issue"  # noqa: S105 - the name of an event
    USER_ADD = "user.add"
    USER_CHANGE = "user.change"
    USER_REMOVE = "user.remove"
    GROUP_ADD = "group.add"
    GROUP_CHANGE = "group.change"
    GROUP_REMOVE = "group.remove"
    ROBOT_ADD = "robot.add"
    ROBOT_ROTATE = "robot.rotate"
    ROBOT_REMOVE = "robot.remove"
    ACCESS_TOKEN_ADD = "access-token.add"  # noqa: S105 - as above
    ACCESS_TOKEN_REVOKE = "access-token.revoke"  # noqa: S105 - as above
    GRANT_ADD = "grant.add"
    GRANT_REMOVE = "grant.remove"
    QUOTA_SET = "quota.set"
    QUOTA_REMOVE = "quota.remove"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    RETENTION_SET = "retention.set"
    RETENTION_ENABLE = "retention.enable"
    RETENTION_DISABLE = "retention.disable"
    RETENTION_REMOVE = "retention.remove"
    RETENTION_RUN = "retention.run"
    BACKUP_CREATE = "backup.create"
    BACKUP_RESTORE = "backup.restore"
    IMMUTABLE_ADD = "immutable.add"
    IMMUTABLE_REMOVE = "immutable.remove"
    IMMUTABLE_OVERRIDE = "immutable.override"
    HOLD_ADD = "hold.add"
    HOLD_REMOVE = "hold.remove"
    HOLD_EXPIRE = "hold.expire"
    TAG_RESTORE = "tag.restore"


_NOWHERE = ClientAddress()


@dataclass(frozen=True, slots=True)
class Actor:
    """The principal who does something, and the client address."""

    name: str
    origin: ClientAddress = _NOWHERE


def record(
    tx: Transaction, actor: Actor, event: Event, target: str, *, fold: str = "", **detail: Any
) -> None:
    """Record an event, in the transaction of the change that it describes. Texts are truncated.

    Events with the same `fold` become one row with a count; the first event is kept.
    """
    audit.insert(
        tx,
        actor=cut(actor.name),
        address=cut(actor.origin.address),
        request_id=actor.origin.request_id,
        kind=event.value,
        target=cut(target),
        detail=json.dumps(_cut_all(detail)),
        fold=fold,
    )


def _cut_all(value: Any) -> Any:
    """Return the value with all texts truncated: some of them come from clients."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        return {key: _cut_all(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cut_all(each) for each in value]
    return value
