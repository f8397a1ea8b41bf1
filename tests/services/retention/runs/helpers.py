"""Helpers of the tests of this folder."""

from typing import Any

from registry.auth.policy.patterns import RepositoryPattern
from registry.oci.names import RepositoryName
from registry.services.retention.planner import Plan
from registry.services.retention.retention import Retention, RunSlice
from tests.metadata.rows import NAME
from tests.support.accounts import OPERATOR

ALL = RepositoryPattern.parse("**")


async def plan_of(retention: Retention, name: RepositoryName = NAME, **more: Any) -> Plan:
    plan = await retention.planner.plan(name, **more)
    assert plan is not None
    return plan


def going(plan: Plan) -> list[str]:
    return [each.item.name for each in plan.tags if each.is_dropped]


async def run(retention: Retention, pattern: str = "**") -> tuple[int, int]:
    """Apply the rules completely, and return how many tags and manifests were dropped."""
    gone, piece = [0, 0], RunSlice("")
    while not piece.ended:
        piece = await retention.run(RepositoryPattern.parse(pattern), piece.done, OPERATOR)
        gone[0] += piece.tags
        gone[1] += piece.manifests
    return gone[0], gone[1]


async def carry_out(retention: Retention, plan: Plan) -> tuple[int, int, bool]:
    """Execute an earlier plan.

    Returns the numbers of dropped tags and manifests, and whether the plan was completed.
    """
    piece = RunSlice("")
    ended = await retention._carry_out(plan, piece)
    return piece.tags, piece.manifests, ended
