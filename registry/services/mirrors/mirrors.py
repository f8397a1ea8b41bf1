"""Management of mirrors."""

import re
from dataclasses import replace
from typing import Any

import msgspec

from registry.auth.audit_log import Actor, Event, record
from registry.errors import ConflictError, InputInvalidError, NotFoundError
from registry.metadata.content import repositories
from registry.metadata.content.repositories import NameRange
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirrors
from registry.metadata.mirrors.mirrors import MirrorRow
from registry.oci.names import RepositoryName
from registry.services.mirrors.mirror import DefaultFor, Mirror
from registry.services.mirrors.options import MirrorOptions
from registry.units import parse_url

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_LONGEST_NAME = 64

REFUSE = "refuse"
"""The word for no default mirror, which no mirror can have as its name."""


class Mirrors:
    """Management of mirrors. A removed mirror leaves what it has cached as ordinary content."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_all(self) -> list[Mirror]:
        """Return all mirrors, by name."""
        return [Mirror.of_row(row) for row in await self._db.read(mirrors.list_all)]

    async def get(self, name: str) -> Mirror:
        """Return a mirror. Raises NotFoundError."""
        return Mirror.of_row(await self._db.read(lambda tx: _find(tx, name)))

    async def add(self, mirror: Mirror, actor: Actor, *, adopt: bool = False) -> Mirror:
        """Add a mirror.

        With `adopt`, repositories that exist below its prefix become part of it. Raises
        InputInvalidError, and ConflictError if its name, its prefix or one of its hosts is in use.
        """
        if len(mirror.name) > _LONGEST_NAME or not _NAME.fullmatch(mirror.name):
            raise InputInvalidError(
                f"invalid name {mirror.name!r:.80}: use at most {_LONGEST_NAME} lowercase letters "
                "and digits, joined by '.', '_' or '-'"
            )
        if mirror.name == REFUSE:
            raise InputInvalidError(f"{REFUSE} stands for no default mirror; use another name")
        mirror = _normalize(mirror)

        def work(tx: Transaction) -> MirrorRow:
            mirrors.lock(tx)
            others = [Mirror.of_row(row) for row in mirrors.list_all(tx)]
            if any(other.name == mirror.name for other in others):
                raise ConflictError(
                    f"the mirror {mirror.name} exists; change it with `moorage mirror set`"
                )
            _require_distinct(mirror, others)
            if not adopt:
                _require_unused(tx, mirror.prefix)
            row = mirrors.insert(tx, _make_row(mirror))
            record(tx, actor, Event.MIRROR_CREATE, row.name, **_describe(mirror))
            return row

        return Mirror.of_row(await self._db.write(work, actor=actor.name))

    async def set(
        self,
        name: str,
        actor: Actor,
        *,
        url: str,
        password: str | None = None,
        options: MirrorOptions,
    ) -> Mirror:
        """Replace the options of a mirror. An empty `password` removes it; None keeps it.

        Raises InputInvalidError, NotFoundError, and ConflictError if a host is in use.
        """

        def work(tx: Transaction) -> MirrorRow:
            mirrors.lock(tx)
            before = Mirror.of_row(_find(tx, name))
            wanted = replace(
                before,
                url=url,
                options=options,
                password=before.password if password is None else password or None,
            )
            wanted = _normalize(wanted)
            others = [Mirror.of_row(row) for row in mirrors.list_all(tx) if row.name != name]
            _require_distinct(wanted, others)
            row = mirrors.update(tx, _make_row(wanted))
            record(tx, actor, Event.MIRROR_UPDATE, name, **_describe(wanted))
            return row

        return Mirror.of_row(await self._db.write(work, actor=actor.name))

    async def set_default(self, name: str | None, default_for: DefaultFor, actor: Actor) -> None:
        """Make a mirror that of requests that name none, or refuse them. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            mirrors.lock(tx)
            if name is not None:
                _find(tx, name)
            mirrors.set_default(tx, name, default_for)
            detail = {"for": default_for.value} if name is not None else {}
            record(tx, actor, Event.MIRROR_DEFAULT, name or REFUSE, **detail)

        await self._db.write(work, actor=actor.name)

    async def remove(self, name: str, actor: Actor) -> None:
        """Remove a mirror. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            mirrors.lock(tx)
            if not mirrors.delete(tx, name):
                raise _unknown(name)
            record(tx, actor, Event.MIRROR_DELETE, name)

        await self._db.write(work, actor=actor.name)


def _find(tx: Transaction, name: str) -> MirrorRow:
    row = mirrors.find(tx, name)
    if row is None:
        raise _unknown(name)
    return row


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"no mirror {name[:80]}")


def _normalize(mirror: Mirror) -> Mirror:
    try:
        url = parse_url(mirror.url).rstrip("/")
    except ValueError as error:
        raise InputInvalidError(
            f"url: {mirror.url!r:.80} is not a URL such as https://registry.example.org"
        ) from error
    options = mirror.options.normalize()
    if mirror.password is not None and not options.username:
        raise InputInvalidError("a password requires `username`")
    if mirror.password is not None and options.password_file:
        raise InputInvalidError("give the password or `password_file`, not both")
    return replace(mirror, url=url, options=options)


def _require_distinct(mirror: Mirror, others: list[Mirror]) -> None:
    """Raise ConflictError if another mirror has the prefix, one that contains it, or a host."""
    for other in others:
        mine, its = f"{mirror.prefix}/", f"{other.prefix}/"
        if mine.startswith(its) or its.startswith(mine):
            raise ConflictError(
                f"the prefix {mirror.prefix} overlaps with {other.prefix} of the mirror "
                f"{other.name}; choose another one"
            )
        if shared := set(mirror.options.hosts) & set(other.options.hosts):
            raise ConflictError(
                f"the host {min(shared)} belongs to the mirror {other.name}; a host has one mirror"
            )


def _require_unused(tx: Transaction, prefix: RepositoryName) -> None:
    below = NameRange(f"{prefix}/")
    if found := repositories.list_names(tx, 1, "", (below,)):
        raise ConflictError(
            f"repositories exist below {prefix}, such as {found[0]}; choose another prefix, or "
            "make them part of the mirror with `adopt` (--adopt)"
        )


def _make_row(mirror: Mirror) -> MirrorRow:
    return MirrorRow(
        mirror.name,
        mirror.prefix,
        mirror.url,
        msgspec.json.encode(mirror.options.list_given()).decode(),
        mirror.password,
    )


def _describe(mirror: Mirror) -> dict[str, Any]:
    """Return the details of an event, which contain no secret."""
    return {"prefix": str(mirror.prefix), "url": mirror.url, **mirror.options.list_given()}
