"""`moorage immutable`: rules for tags that cannot be moved or deleted."""

import argparse

from registry.cli.kit import client, output


def add(args: argparse.Namespace) -> int:
    rule = client.call(args, "add_immutable_tags", pattern=args.pattern, tags=args.tags)
    said = f"Tags {args.tags} are immutable in {args.pattern} from now on."
    output.show(rule, said, as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    rules = client.list_all(args, "list_immutable_tags")
    if args.json:
        output.write_json({"rules": rules})
    else:
        rows = [(r["pattern"], r["tags"], r["created_at"], r["created_by"]) for r in rules]
        output.write_table(("PATTERN", "TAGS", "SINCE", "BY"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    client.call(args, "remove_immutable_tags", pattern=args.pattern, tags=args.tags)
    removed = {"pattern": args.pattern, "tags": args.tags}
    said = f"Tags {args.tags} in {args.pattern} are as free as others."
    output.show({"removed": removed}, said, as_json=args.json)
    return 0
