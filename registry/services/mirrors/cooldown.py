"""Cooldown: a tag answers with a new digest only when the digest has been known for a time."""

import math
from collections.abc import Sequence

from msgspec import Struct

from registry import clock
from registry.clock import rfc3339
from registry.errors import ManifestUnknownError
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_tag_history
from registry.metadata.mirrors.mirror_tag_history import HeldTag, SeenDigest
from registry.oci.references import Tag
from registry.services.mirrors.mirror import Mirror, Mirrored
from registry.services.protection.protection import has_attached_name
from storage.digest import Digest

MOST_LISTED = 1000
"""Maximum number of tags in a list of what is held back."""

_MICROSECOND = 1e-6


class Choice(Struct, frozen=True):
    """The digest with which a tag answers, or None if all are held back.

    The answer changes after `lasts_s` seconds. `latest` is the digest that the upstream has named
    last, if it is known.
    """

    digest: Digest | None
    lasts_s: float = math.inf
    latest: Digest | None = None


def choose(seen: Sequence[SeenDigest], cooldown_s: float, *, serve_new: bool) -> Choice:
    """Return the newest digest that was first seen at least `cooldown_s` seconds ago.

    `seen` begins with the newest. With `serve_new`, the first digest that was ever seen needs no
    cooldown.
    """
    lasts_s, latest = math.inf, seen[0].digest if seen else None
    for place, each in enumerate(seen):
        left = cooldown_s - each.age * _MICROSECOND
        if left <= 0 or (serve_new and place == len(seen) - 1):
            return Choice(each.digest, lasts_s, latest)
        lasts_s = min(lasts_s, left)
    return Choice(None, lasts_s, latest)


class Cooldowns:
    """The digests with which tags of mirrors answer."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def applies_to(self, at: Mirrored, tag: Tag) -> bool:
        """Return whether new digests of the tag are held back.

        A tag that is named after a digest has the signatures of an image that is known already.
        """
        return at.mirror.options.cooldown_s > 0 and not has_attached_name(str(tag))

    async def find(self, at: Mirrored, tag: Tag) -> Choice:
        """Return the current choice for a tag to which a cooldown applies."""
        seen = await self._db.read(
            lambda tx: mirror_tag_history.list_of(tx, at.name, tag), single=True
        )
        return self._choose(at, seen)

    async def observe(self, at: Mirrored, tag: Tag, digest: Digest, actor: str) -> Choice:
        """Record the digest that the upstream names now, and return the choice."""
        seen = await self._db.write(
            lambda tx: mirror_tag_history.observe(tx, at.name, tag, digest), actor=actor
        )
        return self._choose(at, seen)

    async def forget(self, at: Mirrored, tag: Tag, digest: Digest, actor: str) -> Choice:
        """Forget a digest that the upstream no longer has, and return the choice."""

        def work(tx: Transaction) -> list[SeenDigest]:
            mirror_tag_history.delete(tx, at.name, tag, [digest])
            return mirror_tag_history.list_of(tx, at.name, tag)

        return self._choose(at, await self._db.write(work, actor=actor))

    async def list_held(self, mirror: Mirror) -> list[HeldTag]:
        """Return what is held back, at most `MOST_LISTED` digests, the first to be served first."""
        cooldown = mirror.options.cooldown_s
        if not cooldown:
            return []
        return await self._db.read(
            lambda tx: mirror_tag_history.list_held(tx, mirror.pattern, cooldown, MOST_LISTED)
        )

    def _choose(self, at: Mirrored, seen: Sequence[SeenDigest]) -> Choice:
        options = at.mirror.options
        return choose(seen, options.cooldown_s, serve_new=options.serve_new_tags)


def make_held_error(at: Mirrored, tag: Tag, choice: Choice) -> ManifestUnknownError:
    """Return the error for a tag of which all digests are held back."""
    until = rfc3339(clock.now_us() + int(choice.lasts_s / _MICROSECOND))
    return ManifestUnknownError(
        f"{tag} of {at.remote} is new, and is held back until {until} (cooldown of "
        f"{at.mirror.options.cooldown}); to use it now, pull it by its digest {choice.latest}",
        {"reference": str(tag), "digest": str(choice.latest), "until": until},
    )
