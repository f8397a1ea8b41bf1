"""Parsers of the commands that call operations of the admin API.

The commands of user, group, robot, token, grant, key, audit, quota, immutable, hold, gc and
retention work on the data directory, or with `--url` on a remote registry. Some other commands have
the same options.
"""

import argparse
from typing import TYPE_CHECKING

from registry.cli.kit import confirmation
from registry.cli.kit.parsing import add_command, add_group

if TYPE_CHECKING:
    from registry.cli.kit.parsing import Commands


class _Noun:
    """Command group of a noun. The module of the noun has a function for each verb."""

    def __init__(
        self, commands: "Commands", noun: str, summary: str, options: argparse.ArgumentParser
    ) -> None:
        self._group = add_group(commands, noun, summary)
        self._noun = noun
        self._options = options

    def add(
        self,
        verb: str,
        summary: str,
        *arguments: str,
        function: str = "",
        options: argparse.ArgumentParser | None = None,
    ) -> argparse.ArgumentParser:
        """Add a command. `arguments` are the required arguments, in capitals."""
        target = f"commands.{self._noun}:{function or verb}"
        command = add_command(self._group, verb, summary, target, [options or self._options])
        for argument in arguments:
            command.add_argument(argument.lower(), metavar=argument)
        return command


def make_options(
    printing: argparse.ArgumentParser,
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return two parsers of the options that locate and sign in to a registry.

    The first is for commands that read other data from standard input. The second is for all other
    commands, and can read the password from standard input.
    """
    near = argparse.ArgumentParser(add_help=False, parents=[printing])
    far = near.add_argument_group("a registry elsewhere")
    far.add_argument("--url", metavar="URL", help="its address, instead of a data directory here")
    far.add_argument(
        "--user",
        metavar="NAME",
        dest="sign_in_as",
        help="who signs in there, by the password in MOORAGE_PASSWORD or asked for; else the "
        "token in MOORAGE_TOKEN signs in",
    )
    far.add_argument("--ca-file", metavar="FILE", help="more authorities to trust (PEM)")
    reading = argparse.ArgumentParser(add_help=False, parents=[near])
    reading.add_argument(
        "--password-stdin",
        action="store_true",
        dest="sign_in_stdin",
        help="read the password to sign in with from standard input",
    )
    return near, reading


def add_commands(
    commands: "Commands", near: argparse.ArgumentParser, reading: argparse.ArgumentParser
) -> None:
    """Add all commands of this module."""
    _add_users(commands, near, reading)
    _add_groups(_Noun(commands, "group", "groups of users", reading))
    _add_robots(_Noun(commands, "robot", "robot accounts, for CI", reading))
    _add_tokens(_Noun(commands, "token", "personal access tokens", reading))
    _add_grants(_Noun(commands, "grant", "who may do what in which repositories", reading))
    _add_quotas(_Noun(commands, "quota", "how many bytes repositories may have", reading))
    _add_immutable(_Noun(commands, "immutable", "tags that cannot be moved or deleted", reading))
    _add_holds(_Noun(commands, "hold", "manifests that cannot be deleted", reading))
    _add_images(_Noun(commands, "image", "images, with all that belongs to them", reading))
    _add_keys(_Noun(commands, "key", "keys that sign tokens", reading))
    _add_audit(_Noun(commands, "audit", "what happened", reading))
    _add_gc(_Noun(commands, "gc", "garbage collection", reading))
    _add_retention(_Noun(commands, "retention", "dropping tags and manifests by rules", reading))


def _add_users(
    commands: "Commands", near: argparse.ArgumentParser, reading: argparse.ArgumentParser
) -> None:
    users = _Noun(commands, "user", "users", reading)
    # These two commands read the new password from standard input.
    setting = argparse.ArgumentParser(add_help=False, parents=[near])
    setting.add_argument(
        "--password-stdin", action="store_true", help="read the new password from standard input"
    )
    setting.set_defaults(sign_in_stdin=False)
    command = users.add("add", "add a user", "NAME", options=setting)
    command.add_argument("--admin", action="store_true", help="who may do everything")
    command.add_argument("--no-password", action="store_true", help="who signs in by tokens alone")
    users.add("list", "list users", function="list_all")
    users.add("passwd", "set a user's password", "NAME", options=setting)
    command = users.add("change", "make a user an admin, or no longer", "NAME")
    command.add_argument("--admin", action=argparse.BooleanOptionalAction, required=True)
    users.add("disable", "shut a user out, at once", "NAME")
    users.add("enable", "let a user in again", "NAME")
    confirmation.add_option(users.add("remove", "remove a user with her tokens and grants", "NAME"))
    command = users.add(
        "import", "add the users of an htpasswd file", "FILE", function="import_file"
    )
    command.add_argument(
        "--skip", action="store_true", help="leave out the lines that cannot be imported"
    )


def _add_groups(groups: _Noun) -> None:
    groups.add("add", "add a group", "NAME")
    groups.add("list", "list groups and their members", function="list_all")
    groups.add("remove", "remove a group with its grants", "NAME")
    for verb, summary in (
        ("join", "put users into a group"),
        ("leave", "take users out of a group"),
    ):
        groups.add(verb, summary, "GROUP").add_argument("users", metavar="USER", nargs="+")


def _add_robots(robots: _Noun) -> None:
    expires = "when it expires, such as 90d"
    command = robots.add("add", "add a robot and print its secret", "NAME")
    command.add_argument("--expires", metavar="DURATION", help=f"{expires} (default never)")
    robots.add("list", "list robots", function="list_all")
    command = robots.add("rotate", "give a robot a new secret and print it", "NAME")
    command.add_argument("--expires", metavar="DURATION", help=f"{expires} (default as before)")
    command.add_argument(
        "--overlap",
        metavar="DURATION",
        default="24h",
        help="for how long the old secrets stay good (default 24h)",
    )
    robots.add("remove", "remove a robot with its secrets and grants", "NAME")


def _add_tokens(tokens: _Noun) -> None:
    command = tokens.add("add", "add a token of a user and print it", "USER", "NAME")
    command.add_argument(
        "--scope",
        metavar="PATTERN:ACTIONS",
        action="append",
        dest="scopes",
        help="what it is good for at most, such as 'team/**:pull,push'; may be repeated "
        "(default all that the user may do)",
    )
    command.add_argument("--expires", metavar="DURATION", help="such as 30d (default never)")
    tokens.add("list", "list the tokens of a user", "USER", function="list_all")
    tokens.add("revoke", "revoke a token, at once", "USER", "NAME")


def _add_grants(grants: _Noun) -> None:
    actions = "of pull, push, create, overwrite, delete, admin, between commas"
    command = grants.add("add", "grant something", "SUBJECT", "PATTERN")
    command.add_argument("actions", metavar="ACTIONS", help=actions)
    command = grants.add("list", "list grants", function="list_all")
    command.add_argument("--subject", metavar="SUBJECT", help="those of one subject")
    command = grants.add("remove", "take a grant back, or some of it", "SUBJECT", "PATTERN")
    command.add_argument("actions", metavar="ACTIONS", nargs="?", help=f"{actions} (default all)")
    grants.add(
        "check",
        "say whether something is allowed, and why; exit status 0 if it is, else 1",
        "SUBJECT",
        "REPOSITORY",
        "ACTION",
    )


def _add_quotas(quotas: _Noun) -> None:
    quotas.add("set", "set a quota", "PATTERN", "SIZE", function="set_one")
    quotas.add("list", "list quotas and how full they are", function="list_all")
    quotas.add("remove", "remove a quota", "PATTERN")


def _add_immutable(immutable: _Noun) -> None:
    immutable.add(
        "add",
        "let tags that match TAGS be immutable in the repositories of PATTERN",
        "PATTERN",
        "TAGS",
    )
    immutable.add("list", "list the rules", function="list_all")
    immutable.add("remove", "remove a rule", "PATTERN", "TAGS")


def _add_holds(holds: _Noun) -> None:
    command = holds.add("add", "hold a manifest and all below it")
    command.add_argument("manifest", metavar="REPOSITORY@DIGEST")
    command.add_argument("--reason", metavar="TEXT", required=True, help="why, for all to read")
    command.add_argument(
        "--expires", metavar="DURATION", help="for how long, such as 90d (default until removed)"
    )
    holds.add("list", "list holds", function="list_all")
    holds.add("remove", "remove a hold by its id, as the list has it", "ID")


def _add_images(images: _Noun) -> None:
    command = images.add(
        "delete", "delete an image with its tags, and say when its bytes come free"
    )
    command.add_argument("image", metavar="REPOSITORY:TAG|REPOSITORY@DIGEST")
    command.add_argument("--all-tags", action="store_true", help="also if it has other tags")
    command.add_argument(
        "--override", action="store_true", help="also if a tag is immutable; the audit log says so"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would go, and stop there")


def _add_keys(keys: _Noun) -> None:
    keys.add("list", "list keys", function="list_all")
    keys.add("rotate", "sign with a new key from now on")
    keys.add("revoke", "refuse all tokens that a key has signed, at once", "KID")


def _add_audit(audit: _Noun) -> None:
    command = audit.add(
        "list", "list the newest events, the oldest of them first", function="list_all"
    )
    command.add_argument("--since", metavar="WHEN", help="a time, or how long ago, such as 24h")
    command.add_argument("--actor", metavar="NAME", help="what one principal did")
    command.add_argument(
        "--event", metavar="EVENTS", help="kinds of events between commas, such as 'tag.*'"
    )
    command.add_argument(
        "--repository", metavar="PATTERN", help="in one repository, or those of a pattern"
    )
    command.add_argument(
        "--limit", metavar="N", help="at most the newest N (default 1000, with --follow 10)"
    )
    command.add_argument("--follow", action="store_true", help="go on with events as they come")


def _add_gc(gc: _Noun) -> None:
    command = gc.add("run", "collect at once all that is due")
    command.add_argument("--dry-run", action="store_true", help="say what would go, and stop there")
    gc.add("status", "show how the collector is")
    gc.add("why", "show what keeps a blob or a manifest", "DIGEST")


def _add_retention(retention: _Noun) -> None:
    command = retention.add(
        "set",
        "set the rules of a pattern of repositories, in place of those it had",
        "PATTERN",
        function="set_rules",
    )
    for option, summary in (
        ("--keep", "keep tags that match, such as 'v*'"),
        ("--drop", "drop tags that match, such as '*'"),
    ):
        command.add_argument(option, metavar="GLOB", nargs="+", action="extend", help=summary)
    command.add_argument(
        "--keep-newest", metavar="N", type=int, help="keep the newest N of the other tags"
    )
    command.add_argument("--by", choices=("push", "pull"), help="newest by what (default push)")
    command.add_argument(
        "--keep-per-minor", metavar="N", type=int, help="keep the last N versions of each minor one"
    )
    for option, summary in (
        ("--drop-not-pulled", "drop tags not pulled for so long"),
        ("--drop-untagged", "drop manifests untagged for so long"),
    ):
        command.add_argument(option, metavar="DURATION", help=summary)
    command.add_argument(
        "--now", action="store_true", help="let them drop at once, before anybody saw the plan"
    )
    retention.add("enable", "let the rules of a pattern drop from now on", "PATTERN")
    retention.add("disable", "let the rules of a pattern drop nothing any more", "PATTERN")
    retention.add("list", "list the rules", function="list_all")
    retention.add("remove", "remove the rules of a pattern", "PATTERN")
    for verb, summary in (
        ("plan", "say tag by tag what the rules would drop, and why; drop nothing"),
        ("run", "apply the rules now"),
    ):
        retention.add(verb, summary).add_argument(
            "pattern", metavar="PATTERN", nargs="?", default="**", help="in which repositories"
        )
    command = retention.add(
        "runs", "list what retention dropped, by run, or what one run did", function="list_runs"
    )
    command.add_argument("run", metavar="RUN", nargs="?", help="this one, by its number")
    command = retention.add("restore", "put back all that a run dropped", "RUN")
    command.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="**", help="in which repositories"
    )
    retention.add("status", "say when the rules were applied, and when they will be")
