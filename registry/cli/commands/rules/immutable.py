"""`moorage immutable`: rules for tags that cannot be moved or deleted."""

import argparse

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser


def declare(immutable: Parser) -> None:
    """Declare the commands."""
    command = immutable.add_verb(
        "add",
        add,
        "Make tags immutable",
        "moorage immutable add 'team/**' 'v*'",
        url=True,
    )
    command.explain("Immutable tags cannot be moved or deleted.")
    remove_rule = immutable.add_verb(
        "remove",
        remove,
        "Make tags movable again",
        "moorage immutable remove 'team/**' 'v*'",
        url=True,
    )
    for each in (command, remove_rule):
        each.add_argument("pattern", metavar="PATTERN", help="repositories, such as 'team/**'")
        each.add_argument("tags", metavar="TAGS", help="tags, such as 'v*' or '[0-9]*'")
    immutable.add_verb(
        "list", list_all, "List the rules for immutable tags", "moorage immutable list", url=True
    )


def add(args: argparse.Namespace) -> int:
    from registry.operations.immutable_tags import create_immutable_tag_rule

    rule = client.call(args, create_immutable_tag_rule, pattern=args.pattern, tags=args.tags)
    said = f"Tags {args.tags} in {args.pattern} are now immutable."
    output.show(rule, said, as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.immutable_tags import list_immutable_tag_rules

    rules = client.list_all(args, list_immutable_tag_rules)
    if args.json:
        output.write_json({"rules": rules})
    else:
        rows = [(r.pattern, r.tags, r.created_at, r.created_by) for r in rules]
        output.write_table(("PATTERN", "TAGS", "SINCE", "BY"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    from registry.operations.immutable_tags import delete_immutable_tag_rule

    client.call(args, delete_immutable_tag_rule, pattern=args.pattern, tags=args.tags)
    removed = {"pattern": args.pattern, "tags": args.tags}
    said = f"Tags {args.tags} in {args.pattern} are no longer immutable."
    output.show({"removed": removed}, said, as_json=args.json)
    return 0
