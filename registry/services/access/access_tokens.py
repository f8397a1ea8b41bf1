"""Personal access tokens: named, scoped, expiring secrets used in place of a password."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.credentials.secrets import new_secret
from registry.auth.keys.keyring import Keyring
from registry.auth.policy.actions import format_rights
from registry.auth.policy.grants import Bound, read_bounds
from registry.errors import ConflictError, InputInvalidError, NotFoundError
from registry.metadata.access import secrets
from registry.metadata.access.secrets import SecretRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.services.access.users import UserRow, find_user_or_raise

MOST = 100
"""Maximum number of tokens per user: every process keeps all of them in memory."""

_SECOND = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # used in URL paths


class AccessToken(Struct, frozen=True):
    """A token without its secret.

    `bounds` is None if the token may do everything its user may do. Times are in microseconds.
    """

    name: str
    bounds: tuple[Bound, ...] | None
    created_at: int
    expires_at: int | None
    used_at: int | None


@dataclass(frozen=True, slots=True)
class NewAccessToken:
    """A new token with its secret, which is shown only once."""

    token: AccessToken
    secret: str = field(repr=False)


def _read(row: SecretRow) -> AccessToken:
    try:
        bounds = read_bounds(row.scopes)
    except InputInvalidError:
        bounds = ()  # The token grants no access. The policy logs the reason.
    return AccessToken(row.name, bounds, row.created_at, row.expires_at, row.used_at)


def _write_bounds(bounds: Sequence[Bound] | None) -> str | None:
    if bounds is None:
        return None
    return json.dumps([[str(bound.pattern), format_rights(bound.rights)] for bound in bounds])


def _make_room(tx: Transaction, user: UserRow) -> None:
    """Delete the user's expired tokens if the user is at the limit.

    Raises ConflictError if the user is at the limit and no token has expired.
    """
    if secrets.count_of_user(tx, user) < MOST or secrets.delete_expired(tx, tx.now, user):
        return
    raise ConflictError(
        f"{user.name} has {MOST} tokens, which is the limit; revoke one that is not used"
    )


class AccessTokens:
    """Management of personal access tokens, by their user or an administrator."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._db = database
        self._keyring = keyring

    async def list_of(self, user: str) -> list[AccessToken]:
        """Return the user's tokens, ordered by name. Raises NotFoundError."""

        def work(tx: Transaction) -> list[AccessToken]:
            return [_read(row) for row in secrets.list_of_user(tx, find_user_or_raise(tx, user))]

        return await self._db.read(work)

    async def add(
        self,
        user: str,
        name: str,
        actor: Actor,
        *,
        bounds: Sequence[Bound] | None = None,
        lifetime: float | None = None,
    ) -> NewAccessToken:
        """Add a token that is valid for `lifetime` seconds, or until revoked if None.

        Raises NotFoundError, InputInvalidError, ConflictError.
        """
        if not _NAME.fullmatch(name):
            raise InputInvalidError(
                f"invalid token name {name[:80]!r}: use at most 64 letters, digits, '.', "
                "'_' and '-', beginning with a letter or digit"
            )
        if lifetime is not None and lifetime <= 0:
            raise InputInvalidError("the lifetime must be positive")
        secret = new_secret()
        hashed = (await self._keyring.get_hasher()).hash(secret.value)

        def work(tx: Transaction) -> AccessToken:
            row = find_user_or_raise(tx, user, lock=True)
            expires = None if lifetime is None else tx.now + int(lifetime * _SECOND)
            scopes = _write_bounds(bounds)
            read_bounds(scopes)  # Fail now: a token whose bounds cannot be parsed grants no access.
            _make_room(tx, row)
            if not secrets.insert_for_user(
                tx,
                row,
                secret_id=secret.id,
                name=name,
                hash_=hashed,
                scopes=scopes,
                expires_at=expires,
            ):
                raise ConflictError(
                    f"{user} already has a token {name!r}; choose another name or revoke that token"
                )
            record(
                tx,
                actor,
                Event.ACCESS_TOKEN_CREATE,
                user,
                name=name,
                scopes=scopes,
                expires_at=expires,
            )
            return AccessToken(
                name, None if bounds is None else tuple(bounds), tx.now, expires, None
            )

        return NewAccessToken(await self._db.write(work, actor=actor.name), secret.reveal())

    async def revoke(self, user: str, name: str, actor: Actor) -> None:
        """Revoke a token with immediate effect. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            if not secrets.delete_of_user(tx, find_user_or_raise(tx, user, lock=True), name):
                raise NotFoundError(f"{user} has no token {name!r}")
            record(tx, actor, Event.ACCESS_TOKEN_REVOKE, user, name=name)

        await self._db.write(work, actor=actor.name)
