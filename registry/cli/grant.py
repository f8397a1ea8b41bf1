"""`moorage grant`: who may do what in which repositories."""

import argparse
from typing import Any

from registry.auth.actions import Right, parse_rights
from registry.cli import admin, output

_NOT_ALLOWED = 1


def add(args: argparse.Namespace) -> int:
    actions = _split(args.actions)
    grant = admin.do(args, "add_grant", subject=args.subject, pattern=args.pattern, actions=actions)
    output.show(grant, _write(grant), as_json=args.json)
    given = parse_rights(grant["actions"])
    if not given & {Right.PULL, Right.ADMIN}:
        output.hint("This is of use only beside pull: answers to pushes tell what is there.")
    return 0


def _split(text: str) -> list[str]:
    """Read actions between commas; RightsInvalidError."""
    actions = text.split(",")
    parse_rights(actions)
    return actions


def _write(grant: Any) -> str:
    return f"{grant['subject']} may {', '.join(grant['actions'])} in {grant['pattern']}"


def list_all(args: argparse.Namespace) -> int:
    grants = admin.list_all(args, "list_grants", subject=args.subject)
    if args.json:
        output.write_json({"grants": grants})
    else:
        rows = [(g["subject"], g["pattern"], ",".join(g["actions"])) for g in grants]
        output.write_table(("SUBJECT", "PATTERN", "ACTIONS"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    actions = None if args.actions is None else _split(args.actions)
    admin.do(args, "take_grant", subject=args.subject, pattern=args.pattern, actions=actions)
    taken = {"subject": args.subject, "pattern": args.pattern, "actions": actions}
    what = "all" if actions is None else ", ".join(actions)
    said = f"Taken from {args.subject}: {what} in {args.pattern}."
    output.show({"removed": taken}, said, as_json=args.json)
    return 0


def check(args: argparse.Namespace) -> int:
    """The exit status is the answer."""
    _split(args.action)
    decision = admin.do(
        args,
        "check_grant",
        subject=args.subject,
        repository=args.repository,
        action=args.action,
    )
    verdict = "allowed" if decision["allowed"] else "not allowed"
    lines = [f"{verdict}: {decision['reason']}"]
    lines += [f"  {_write(grant)}" for grant in decision["grants"]]
    output.show(decision, "\n".join(lines), as_json=args.json)
    return 0 if decision["allowed"] else _NOT_ALLOWED
