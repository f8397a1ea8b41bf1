"""`moorage grant`: permissions of users, groups and robots on repositories."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.auth.policy.actions import GrantAction, parse_rights
from registry.auth.policy.patterns import RepositoryPattern
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.errors import RemoteRefusedError

if TYPE_CHECKING:
    from registry.operations.grants import Grant

_NOT_ALLOWED = 1

_SHOWING = {GrantAction.PULL, GrantAction.ADMIN}

_ACTIONS = "comma-separated: pull, push, create, overwrite, delete, admin"
_SUBJECT = "user name, group:NAME, robot:NAME, authenticated or anonymous"
_PATTERN = "repositories: team/app, 'team/*', 'team/**' or '**'"


def declare(grants: Parser) -> None:
    """Declare the commands."""
    command = grants.add_verb(
        "add",
        add,
        "Grant actions in repositories",
        "moorage grant add group:devs 'team/**' pull,push",
        "moorage grant add anonymous 'public/*' pull",
        url=True,
    )
    command.explain("The actions are added to those that the subject has for the same pattern.")
    command.add_argument("subject", metavar="SUBJECT", help=_SUBJECT)
    command.add_argument("pattern", metavar="PATTERN", help=_PATTERN)
    command.add_argument("actions", metavar="ACTIONS", help=_ACTIONS)
    command = grants.add_verb(
        "list", list_all, "List grants", "moorage grant list --subject alice", url=True
    )
    command.add_argument("--subject", metavar="SUBJECT", help=f"only those of one {_SUBJECT}")
    command = grants.add_verb(
        "remove",
        remove,
        "Remove a grant, or some of its actions",
        "moorage grant remove alice 'team/**' push",
        url=True,
    )
    command.add_argument("subject", metavar="SUBJECT", help=_SUBJECT)
    command.add_argument("pattern", metavar="PATTERN", help=_PATTERN)
    command.add_argument("actions", metavar="ACTIONS", nargs="?", help=f"{_ACTIONS} (default: all)")
    command = grants.add_verb(
        "check",
        check,
        "Report whether an action is allowed, and which grants decide",
        "moorage grant check alice team/app push",
        url=True,
    )
    command.explain("The exit status is 0 if it is allowed, otherwise 1.")
    command.add_argument("subject", metavar="SUBJECT", help=_SUBJECT)
    command.add_argument("repository", metavar="REPOSITORY", help="name of a repository")
    command.add_argument("action", metavar="ACTION", help="one of the actions of grants")


def add(args: argparse.Namespace) -> int:
    from registry.operations.grants import create_grant

    actions = _split(args.actions)

    async def work(operations: client.OperationClient) -> tuple[Grant, str]:
        grant = await operations.send(
            create_grant, subject=args.subject, pattern=args.pattern, actions=actions
        )
        return grant, await _find_lack(operations, grant)

    grant, lack = client.run(args, work)
    output.show(grant, _write(grant), as_json=args.json)
    if lack:
        output.write_note(lack)
    return 0


async def _find_lack(operations: client.OperationClient, grant: Grant) -> str:
    """Return a hint about another grant that this one needs, or an empty text."""
    from registry.operations.grants import list_grants
    from registry.operations.groups import list_groups

    subject, pattern = grant.subject, RepositoryPattern.parse(grant.pattern)
    if parse_rights(grant.actions) & _SHOWING:
        return ""
    subjects = {subject, "authenticated", "anonymous"}
    try:
        groups = await client.list_pages(operations, list_groups)
    except RemoteRefusedError:
        groups = None
    subjects |= {f"group:{each.name}" for each in groups or () if subject in each.members}
    for each in await client.list_pages(operations, list_grants):
        shows = each.subject in subjects and parse_rights(each.actions) & _SHOWING
        if shows and RepositoryPattern.parse(each.pattern).covers(pattern):
            return ""
    found = f"{subject} has no grant of pull on all of {pattern}" + (
        "" if groups is not None else ", unless as a member of a group"
    )
    return (
        f"{found}. Pushing and deleting need it too, because their responses show what exists. To "
        f"add it: moorage grant add {subject} '{pattern}' pull"
    )


def _split(text: str) -> list[str]:
    """Split actions at commas. Raises ActionInvalidError for an unknown action."""
    actions = text.split(",")
    parse_rights(actions)
    return actions


def _write(grant: Grant) -> str:
    return f"{grant.subject} may {', '.join(grant.actions)} in {grant.pattern}"


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.grants import list_grants

    grants = client.list_all(args, list_grants, subject=args.subject)
    if args.json:
        output.write_json({"grants": grants})
    else:
        rows = [(g.subject, g.pattern, ",".join(g.actions)) for g in grants]
        output.write_table(("SUBJECT", "PATTERN", "ACTIONS"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    from registry.operations.grants import revoke_actions

    actions = None if args.actions is None else _split(args.actions)
    client.call(args, revoke_actions, subject=args.subject, pattern=args.pattern, actions=actions)
    taken = {"subject": args.subject, "pattern": args.pattern, "actions": actions}
    what = "all actions" if actions is None else ", ".join(actions)
    said = f"Removed from {args.subject}: {what} in {args.pattern}."
    output.show({"removed": taken}, said, as_json=args.json)
    return 0


def check(args: argparse.Namespace) -> int:
    """Check a permission, and return the result as exit status."""
    from registry.operations.grants import check_grant

    _split(args.action)
    decision = client.call(
        args,
        check_grant,
        subject=args.subject,
        repository=args.repository,
        action=args.action,
    )
    verdict = "allowed" if decision.allowed else "not allowed"
    lines = [f"{verdict}: {decision.reason}"]
    lines += [f"  {_write(grant)}" for grant in decision.grants]
    output.show(decision, "\n".join(lines), as_json=args.json)
    return 0 if decision.allowed else _NOT_ALLOWED
