"""Writes the audit log: the event, its target, actor and address. It never contains secrets."""

import json
from enum import StrEnum
from typing import Any

from msgspec import Struct

from registry.auth.client_address import ClientAddress
from registry.logs import cut
from registry.metadata.access import audit
from registry.metadata.engine.transaction import Transaction


class Event(StrEnum):
    """The kind of an event."""

    SIGN_IN_FAIL = "sign-in.fail"
    TOKEN_ISSUE = "token.issue"  # noqa: S105 - the name of an event
    USER_CREATE = "user.create"
    USER_UPDATE = "user.update"
    USER_DELETE = "user.delete"
    GROUP_CREATE = "group.create"
    GROUP_UPDATE = "group.update"
    GROUP_DELETE = "group.delete"
    ROBOT_CREATE = "robot.create"
    ROBOT_ROTATE = "robot.rotate"
    ROBOT_DELETE = "robot.delete"
    ACCESS_TOKEN_CREATE = "access-token.create"  # noqa: S105 - as above
    ACCESS_TOKEN_REVOKE = "access-token.revoke"  # noqa: S105 - as above
    GRANT_CREATE = "grant.create"
    GRANT_DELETE = "grant.delete"
    QUOTA_SET = "quota.set"
    QUOTA_DELETE = "quota.delete"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    RETENTION_SET = "retention.set"
    RETENTION_ENABLE = "retention.enable"
    RETENTION_DISABLE = "retention.disable"
    RETENTION_DELETE = "retention.delete"
    RETENTION_RUN = "retention.run"
    BACKUP_CREATE = "backup.create"
    BACKUP_RESTORE = "backup.restore"
    IMMUTABLE_CREATE = "immutable.create"
    IMMUTABLE_DELETE = "immutable.delete"
    IMMUTABLE_OVERRIDE = "immutable.override"
    HOLD_CREATE = "hold.create"
    HOLD_DELETE = "hold.delete"
    HOLD_EXPIRE = "hold.expire"
    TAG_RESTORE = "tag.restore"
    MIRROR_CREATE = "mirror.create"
    MIRROR_UPDATE = "mirror.update"
    MIRROR_DELETE = "mirror.delete"
    MIRROR_DEFAULT = "mirror.default"
    MIRROR_EVICT = "mirror.evict"
    MIRROR_SYNC = "mirror.sync"
    MIRROR_SCHEDULE = "mirror.schedule"
    MIRROR_UNSCHEDULE = "mirror.unschedule"


_NO_ADDRESS = ClientAddress()


class Actor(Struct, frozen=True):
    """The principal who does something, and the client address."""

    name: str
    origin: ClientAddress = _NO_ADDRESS


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
