"""All operations of the admin API, the source of its routes, OpenAPI document and commands."""

from registry.operations import (
    audit,
    gc,
    grants,
    groups,
    holds,
    images,
    immutable_tags,
    keys,
    me,
    quotas,
    repositories,
    retention,
    retention_runs,
    robots,
    tags,
    tokens,
    usage,
    users,
)
from registry.operations.mirrors import eviction, held, mirrors, refresh, syncs
from registry.operations.mirrors import status as mirror_status
from registry.operations.operation import Operation

BASE = "/api/v1"
"""The path prefix of all operations."""

OPERATIONS: tuple[Operation, ...] = (
    *me.OPERATIONS,
    *users.OPERATIONS,
    *tokens.OPERATIONS,
    *groups.OPERATIONS,
    *robots.OPERATIONS,
    *grants.OPERATIONS,
    *quotas.OPERATIONS,
    *immutable_tags.OPERATIONS,
    *holds.OPERATIONS,
    *repositories.OPERATIONS,
    *tags.OPERATIONS,
    *images.OPERATIONS,
    *usage.OPERATIONS,
    *keys.OPERATIONS,
    *audit.OPERATIONS,
    *mirrors.OPERATIONS,
    *eviction.OPERATIONS,
    *refresh.OPERATIONS,
    *held.OPERATIONS,
    *syncs.OPERATIONS,
    *mirror_status.OPERATIONS,
    *gc.OPERATIONS,
    *retention.OPERATIONS,
    *retention_runs.OPERATIONS,
)

BY_NAME = {operation.name: operation for operation in OPERATIONS}
