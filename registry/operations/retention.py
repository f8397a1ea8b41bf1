"""Retention: rules per pattern of repositories, plans of what they would delete, and runs."""

from enum import StrEnum

from registry.auth.policy.patterns import RepositoryPattern
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    NoInput,
    Page,
    PageRequest,
    Pattern,
    RequestModel,
    ResponseModel,
    Size,
    Text,
    Timestamp,
    clamp,
    make_visible_page,
    write_timestamp,
)
from registry.operations.operation import ADMINS, Operation
from registry.operations.permissions import PATTERN_ADMINS, SOME_ADMINS
from registry.services.retention import planner
from registry.services.retention.conditions import Conditions
from registry.services.retention.rules import RetentionRule, RuleState


class RetentionRules(Conditions, ResponseModel, frozen=True, forbid_unknown_fields=False):
    """The retention rules of a pattern of repositories. Null or an empty list means no rule.

    If `enabled` is false, the rules still protect what they keep, but delete nothing. After a
    change, nothing is deleted in these repositories before `waits_until`.
    """

    pattern: str
    enabled: bool
    waits_until: Timestamp | None


class PlanAction(StrEnum):
    """What happens to a tag or a manifest in a plan."""

    KEEP = "keep"
    DROP = "drop"


class PlannedTag(ResponseModel, frozen=True):
    """A tag in a plan: whether it is kept or dropped, by which rule, and how many bytes that frees.

    `rule` is the pattern of repositories whose rules decide.
    """

    tag: str
    digest: str
    pushed_at: Timestamp
    pulled_at: Timestamp | None
    action: PlanAction
    rule: str | None
    reason: str
    bytes: int


class PlannedManifest(ResponseModel, frozen=True):
    """A manifest in a plan that no tag, index or subject refers to.

    The fields are as in PlannedTag.
    """

    digest: str
    untagged_at: Timestamp
    pulled_at: Timestamp | None
    action: PlanAction
    rule: str | None
    reason: str
    bytes: int


class RetentionPlan(ResponseModel, frozen=True):
    """What the rules would do in a repository, and how many bytes all deletions together free.

    Manifests without a tag are listed if a rule deletes untagged manifests. The rules of the
    patterns in `not_enabled` do not delete anything yet, but the plan includes them. Nothing is
    deleted before `paused_until`, because rules have changed or the clock has jumped.
    """

    repository: str
    tags: list[PlannedTag]
    manifests: list[PlannedManifest]
    bytes: int
    not_enabled: list[str]
    paused_until: Timestamp | None


class RetentionBatch(ResponseModel, frozen=True):
    """The number of deletions in one batch of a run.

    `next` is the `last` of the next request; null if nothing is left.
    """

    tags: int
    manifests: int
    next: str | None


class RetentionStatus(ResponseModel, frozen=True):
    """The last or current run. `ended_at` is null while it is in progress.

    `due_at` is the time of the next run; null if there is nothing to delete. `paused_until` is the
    end of the pause if the clock has jumped.
    """

    started_at: Timestamp | None
    ended_at: Timestamp | None
    tags: int
    manifests: int
    due_at: Timestamp | None
    paused_until: Timestamp | None


class SetRetention(Conditions, RequestModel, frozen=True):
    """The rules of a pattern. A field that is left out is no rule. `by` requires `keep_newest`.

    `now` enables the rules and skips the wait.
    """

    pattern: Pattern
    now: bool = False


class PatternedRetention(RequestModel, frozen=True):
    """The pattern of the rules."""

    pattern: Pattern


class PlanRetention(RequestModel, frozen=True):
    """A page of plans by name: at most `n` repositories of the pattern after `last`."""

    pattern: Pattern = "**"
    n: Size = PAGE_SIZE
    last: Text = ""


class RunRetention(RequestModel, frozen=True):
    """A batch of a run over the repositories of the pattern after `last`."""

    pattern: Pattern = "**"
    last: Text = ""


def _show(state: RuleState) -> RetentionRules:
    rule = state.rule
    return RetentionRules(
        pattern=str(rule.pattern),
        enabled=state.enabled,
        waits_until=write_timestamp(state.waits_until),
        **rule.values(),
    )


def _show_plan(plan: planner.Plan) -> RetentionPlan:
    return RetentionPlan(
        repository=str(plan.repository.name),
        tags=[
            PlannedTag(
                tag=each.item.name,
                digest=str(each.item.digest),
                pushed_at=rfc3339(each.item.pushed_at),
                pulled_at=write_timestamp(each.item.pulled_at),
                action=PlanAction.DROP if each.is_dropped else PlanAction.KEEP,
                rule=str(each.rule) if each.rule else None,
                reason=each.reason,
                bytes=each.bytes,
            )
            for each in plan.tags
        ],
        manifests=[
            PlannedManifest(
                digest=str(each.item.digest),
                untagged_at=rfc3339(each.item.untagged_at),
                pulled_at=write_timestamp(each.item.pulled_at),
                action=PlanAction.DROP if each.is_dropped else PlanAction.KEEP,
                rule=str(each.rule) if each.rule else None,
                reason=each.reason,
                bytes=each.bytes,
            )
            for each in plan.manifests
        ],
        bytes=sum(each.bytes for each in plan.drops),
        not_enabled=plan.not_enabled,
        paused_until=write_timestamp(plan.paused_until),
    )


async def list_retention_rules(
    context: OperationContext, request: PageRequest
) -> Page[RetentionRules]:
    """List the retention rules that the caller may administer, by pattern."""
    return await make_visible_page(
        context.registry.retention_rules.list_page,
        clamp(request.n),
        request.last,
        is_visible=lambda state: context.administers(state.rule.pattern),
        show=_show,
        key=lambda state: str(state.rule.pattern),
    )


async def set_retention_rules(context: OperationContext, request: SetRetention) -> RetentionRules:
    """Set the retention rules of a pattern. They replace its previous rules.

    New rules delete nothing until they are enabled. After a change, nothing is deleted for one
    interval.
    """
    rule = RetentionRule(RepositoryPattern.parse(request.pattern), **request.values())
    return _show(await context.registry.retention_rules.set(rule, context.actor, now=request.now))


async def enable_retention_rules(
    context: OperationContext, request: PatternedRetention
) -> RetentionRules:
    """Enable the retention rules of a pattern: they delete from now on."""
    pattern = RepositoryPattern.parse(request.pattern)
    return _show(await context.registry.retention_rules.enable(pattern, context.actor))


async def disable_retention_rules(
    context: OperationContext, request: PatternedRetention
) -> RetentionRules:
    """Disable the retention rules of a pattern.

    Disabled rules delete nothing, but still protect what they keep.
    """
    pattern = RepositoryPattern.parse(request.pattern)
    return _show(await context.registry.retention_rules.disable(pattern, context.actor))


async def delete_retention_rules(context: OperationContext, request: PatternedRetention) -> None:
    """Delete the retention rules of a pattern. Nothing is deleted there for one interval."""
    await context.registry.retention_rules.remove(
        RepositoryPattern.parse(request.pattern), context.actor
    )


async def plan_retention(context: OperationContext, request: PlanRetention) -> Page[RetentionPlan]:
    """Return for each tag whether the rules would delete it if they were enabled, and why.

    Nothing is deleted. A page ends early if it becomes long.
    """
    plans, last = await context.registry.retention.planner.list_plans(
        RepositoryPattern.parse(request.pattern), clamp(request.n), request.last
    )
    return Page([_show_plan(plan) for plan in plans], last)


async def run_retention(context: OperationContext, request: RunRetention) -> RetentionBatch:
    """Apply the rules now, for a few seconds. Repeat the request from `next`."""
    piece = await context.registry.retention.run(
        RepositoryPattern.parse(request.pattern), request.last, context.actor
    )
    return RetentionBatch(piece.tags, piece.manifests, None if piece.ended else piece.done)


async def get_retention_status(context: OperationContext, request: NoInput) -> RetentionStatus:
    """Return when the rules were last applied, and when they will be next."""
    del request
    status = await context.registry.retention.get_status()
    run = status.run
    return RetentionStatus(
        started_at=rfc3339(run.started_at) if run else None,
        ended_at=write_timestamp(run.ended_at) if run else None,
        tags=run.tags if run else 0,
        manifests=run.manifests if run else 0,
        due_at=write_timestamp(status.due_at),
        paused_until=write_timestamp(status.paused_until),
    )


_RULES = "/retention/rules"

OPERATIONS = (
    Operation("GET", _RULES, list_retention_rules, SOME_ADMINS, (ConflictError,)),
    Operation("PUT", _RULES, set_retention_rules, PATTERN_ADMINS),
    Operation(
        "POST",
        f"{_RULES}/enable",
        enable_retention_rules,
        PATTERN_ADMINS,
        (NotFoundError, ConflictError),
    ),
    Operation(
        "POST",
        f"{_RULES}/disable",
        disable_retention_rules,
        PATTERN_ADMINS,
        (NotFoundError, ConflictError),
    ),
    Operation(
        "POST", f"{_RULES}/delete", delete_retention_rules, PATTERN_ADMINS, (NotFoundError,), 204
    ),
    Operation("GET", "/retention/plan", plan_retention, PATTERN_ADMINS, (ConflictError,)),
    Operation("POST", "/retention/run", run_retention, PATTERN_ADMINS, (ConflictError,)),
    Operation("GET", "/retention/status", get_retention_status, ADMINS),
)
