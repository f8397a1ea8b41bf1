"""`moorage`: the command line. The module of a command is imported when the command runs."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from registry.cli import access
from registry.cli.kit import confirmation
from registry.cli.kit.error_report import EXPECTED, describe
from registry.cli.kit.output import OutputClosedError, discard_stdout, flush, write_error
from registry.cli.kit.parsing import add_command, add_group
from registry.version import find_version

if TYPE_CHECKING:
    from registry.cli.kit.parsing import Commands

FAILED = 1
_INTERRUPTED = 130
_READER_GONE = 141


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", metavar="FILE", help="settings file (TOML)")
    shared.add_argument("--data", metavar="DIR", help="data directory (default ./data)")
    parser = argparse.ArgumentParser(prog="moorage", description="A Docker/OCI registry.")
    parser.add_argument("--version", action="version", version=f"moorage {find_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = add_command(commands, "serve", "run the registry", "server.serve:serve", [shared])
    serve.add_argument(
        "--listen", metavar="HOST:PORT|unix:PATH", help="address (default 127.0.0.1:5000)"
    )
    serve.add_argument("--workers", metavar="N", help="worker processes (default 1)")
    worker = add_command(
        commands, "worker", "run the background jobs alone", "server.worker:work", [shared]
    )
    worker.add_argument(
        "--check",
        action="store_true",
        help="report whether the worker of the data directory is healthy; exit status 0 or 1",
    )

    printing = argparse.ArgumentParser(add_help=False, parents=[shared])
    printing.add_argument("--json", action="store_true", help="print JSON")
    _add_database(add_group(commands, "db", "the database's schema"), printing)
    _add_storage(add_group(commands, "storage", "the stores of blobs"), printing)
    _add_checks(commands, printing)
    _add_backup(add_group(commands, "backup", "copies of the registry elsewhere"), printing)
    _add_config(add_group(commands, "config", "the settings"), printing)
    _add_repositories(add_group(commands, "repo", "repositories"), printing)
    near, reading = access.make_options(printing)
    _add_tags(add_group(commands, "tag", "tags"), printing, reading)
    _add_usage(commands, printing)
    access.add_commands(commands, near, reading)
    return parser


def _add_database(group: "Commands", printing: argparse.ArgumentParser) -> None:
    upgrade = add_command(
        group, "upgrade", "bring the schema up to date", "commands.db:upgrade", [printing]
    )
    upgrade.add_argument(
        "--wait", action="store_true", help="wait for a database that does not answer yet"
    )
    add_command(group, "status", "show the schema's version", "commands.db:status", [printing])
    copy = add_command(
        group, "copy", "copy all of it to another database", "commands.db_copy:copy", [printing]
    )
    copy.add_argument(
        "--to", metavar="URL", help="SQLAlchemy URL of an empty database, without a password"
    )
    copy.add_argument(
        "--to-file", metavar="FILE", help="file that holds the URL, with its password; -: stdin"
    )
    copy.add_argument("--keep", action="store_true", help="go on with this database afterwards")
    copy.add_argument(
        "--release", action="store_true", help="take changes again after a copy, copy nothing"
    )


def _add_storage(group: "Commands", printing: argparse.ArgumentParser) -> None:
    copy = add_command(
        group,
        "copy",
        "move all blobs from the old store to the new",
        "commands.storage:copy",
        [printing],
    )
    copy.add_argument("--dry-run", action="store_true", help="say how much there is, move nothing")
    copy.add_argument("--parallel", metavar="N", default="4", help="blobs at once (default 4)")
    copy.add_argument("--pace", metavar="SIZE", help="bytes a second at the most (20MiB)")
    copy.add_argument(
        "--keep",
        metavar="DURATION",
        default="1h",
        help="how long bytes stay in the old store after their blob has moved (default 1h)",
    )


def _add_checks(commands: "Commands", printing: argparse.ArgumentParser) -> None:
    listing = argparse.ArgumentParser(add_help=False, parents=[printing])
    listing.add_argument(
        "--limit",
        metavar="N",
        default="1000",
        help="damaged blobs, and tags of each (default 1000)",
    )
    group = add_group(commands, "scrub", "stored bytes, read again and compared with their digests")
    scrub = add_command(
        group, "run", "read all blobs and say which are damaged", "commands.scrub:work", [listing]
    )
    scrub.add_argument("--rate", metavar="SIZE", help="bytes a second at the most, 0B for no limit")
    scrub.add_argument(
        "--restart", action="store_true", help="begin anew where a pass is under way"
    )
    add_command(
        group,
        "status",
        "show damaged blobs and what they break",
        "commands.scrub:status",
        [listing],
    )
    fsck = add_command(
        commands,
        "fsck",
        "compare blobs with what is in the stores",
        "commands.fsck:check",
        [printing],
    )
    fsck.add_argument(
        "--repair", action="store_true", help="quarantine, adopt or remove what does not fit"
    )
    fsck.add_argument(
        "--grace",
        metavar="DURATION",
        help="leave younger objects alone that no row names (default storage.upload_expiry)",
    )


def _add_backup(group: "Commands", printing: argparse.ArgumentParser) -> None:
    opening = argparse.ArgumentParser(add_help=False, parents=[printing])
    opening.add_argument("target", metavar="TARGET", help="folder of the backups")
    keys = argparse.ArgumentParser(add_help=False, parents=[opening])
    keys.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="first line: what encrypts private keys (else MOORAGE_BACKUP_PASSPHRASE)",
    )
    keys.add_argument("--parallel", metavar="N", default="4", help="blobs at once (default 4)")
    create = add_command(
        group,
        "create",
        "add a snapshot, while the registry serves",
        "commands.backup:create",
        [keys],
    )
    create.add_argument("--with-keys", action="store_true", help="with private keys, encrypted")
    create.add_argument("--pace", metavar="SIZE", help="bytes a second at the most (20MiB)")
    add_command(group, "list", "list the snapshots", "commands.backup:list_all", [opening])
    verify = add_command(
        group,
        "verify",
        "read all of it and say what is damaged",
        "commands.backup:verify",
        [opening],
    )
    restore = add_command(
        group, "restore", "fill an empty registry", "commands.backup_restore:restore", [keys]
    )
    restore.add_argument(
        "--without-keys", action="store_true", help="leave out the private keys that it has"
    )
    restore.add_argument(
        "--allow-missing", action="store_true", help="open the registry without damaged blobs"
    )
    verify.add_argument("--snapshot", metavar="ID", help="this one alone (default all)")
    restore.add_argument("--snapshot", metavar="ID", help="this one (default the newest)")
    prune = add_command(
        group,
        "prune",
        "remove old snapshots and what only they need",
        "commands.backup:prune",
        [opening],
    )
    prune.add_argument("--keep", metavar="N", required=True, help="how many of the newest stay")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")


def _add_config(group: "Commands", printing: argparse.ArgumentParser) -> None:
    check = add_command(
        group, "check", "check the settings, change nothing", "commands.config:check", [printing]
    )
    check.add_argument(
        "--connect", action="store_true", help="open the database and the stores as well"
    )
    add_command(group, "show", "show the settings in force", "commands.config:show", [printing])


def _add_repositories(group: "Commands", printing: argparse.ArgumentParser) -> None:
    add_command(group, "list", "list repositories", "commands.repo:list_all", [printing])
    show = add_command(
        group, "show", "show what a repository holds", "commands.repo:show", [printing]
    )
    delete = add_command(
        group,
        "delete",
        "delete a repository with all that is in it",
        "commands.repo:delete",
        [printing],
    )
    for command in (show, delete):
        command.add_argument("repository", metavar="REPOSITORY")
    _add_override(delete)
    confirmation.add_option(delete)


def _add_tags(
    group: "Commands", printing: argparse.ArgumentParser, reading: argparse.ArgumentParser
) -> None:
    command = add_command(
        group, "list", "list the tags of a repository", "commands.tag:list_all", [printing]
    )
    command.add_argument("repository", metavar="REPOSITORY")
    command = add_command(
        group,
        "copy",
        "tag a manifest anew, here or in another repository",
        "commands.tag:copy",
        [printing],
    )
    command.add_argument("source", metavar="REPOSITORY:TAG|REPOSITORY@DIGEST")
    command.add_argument("target", metavar="REPOSITORY:TAG")
    _add_override(command)
    command = add_command(
        group, "history", "show where a tag has pointed", "commands.tag:history", [reading]
    )
    command.add_argument("tag", metavar="REPOSITORY:TAG")
    command = add_command(
        group, "restore", "let a tag point again at what it did", "commands.tag:restore", [reading]
    )
    command.add_argument("tag", metavar="REPOSITORY:TAG")
    goal = command.add_mutually_exclusive_group()
    goal.add_argument(
        "--at",
        metavar="WHEN",
        help="at a time, or so long ago, such as 24h (default before it last moved or went)",
    )
    goal.add_argument("--digest", metavar="DIGEST", help="at this manifest")
    _add_override(command)
    command = add_command(
        group, "delete", "delete a tag, not its manifest", "commands.tag:delete", [printing]
    )
    command.add_argument("tag", metavar="REPOSITORY:TAG")
    _add_override(command)


def _add_override(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--override", action="store_true", help="also if it is immutable; the audit log says so"
    )


def _add_usage(commands: "Commands", printing: argparse.ArgumentParser) -> None:
    summary = "who has how many bytes, and what deleting would free"
    command = add_command(commands, "usage", summary, "commands.usage:show", [printing])
    command.add_argument("--top", metavar="N", default="20", help="lines of each table (20)")
    command.add_argument(
        "--if-deleted",
        metavar="REPOSITORY:TAG",
        nargs="+",
        help="say instead what would go with these tags",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    The exit status is 0 for success, 1 for a failure and 2 for wrong usage. As with other tools,
    it is 130 after an interrupt, and 141 if the reader of the output has closed it (`| head`).
    """
    try:
        try:
            return _run(argv)
        finally:
            flush()
    except OutputClosedError:
        discard_stdout()
        return _READER_GONE


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
    except BrokenPipeError as error:  # raised by --help before Python 3.11.3
        raise OutputClosedError from error
    module, function = args.command.split(":")
    command: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"registry.cli.{module}"), function
    )
    try:
        return command(args)
    except EXPECTED as error:
        write_error(describe(error))
        return FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
