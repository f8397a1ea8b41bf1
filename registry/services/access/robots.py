"""Robot accounts for CI and other programs. They sign in as `robot+NAME` with a secret."""

from dataclasses import dataclass, field

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.credentials.secrets import new_secret
from registry.auth.keys.keyring import Keyring
from registry.auth.policy.subjects import ROBOT_SIGN_IN, Subject, SubjectKind, parse_account_name
from registry.errors import ConflictError, InputInvalidError, NotFoundError
from registry.metadata.access import grants, robots, secrets
from registry.metadata.access.robots import RobotRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction

_SECOND = 1_000_000


class Robot(Struct, frozen=True):
    """A robot account.

    Times are in microseconds. `used_at` is the time of the last use of any of its secrets.
    """

    name: str
    created_at: int
    expires_at: int | None
    used_at: int | None

    @property
    def username(self) -> str:
        """The user name that the robot signs in with."""
        return ROBOT_SIGN_IN + self.name


@dataclass(frozen=True, slots=True)
class NewRobotSecret:
    """A robot with its new secret, which is shown only once."""

    robot: Robot
    secret: str = field(repr=False)


def _find_or_raise(tx: Transaction, name: str) -> RobotRow:
    found = robots.find(tx, name, lock=True)
    if found is None:
        raise NotFoundError(f"no robot {name!r}")
    return found


def _read(tx: Transaction, row: RobotRow) -> Robot:
    used = [secret.used_at or 0 for secret in secrets.list_of_robot(tx, row)]
    return Robot(row.name, row.created_at, row.expires_at, max(used, default=0) or None)


class Robots:
    """Management of robots and their secrets."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._db = database
        self._keyring = keyring

    async def list_page(self, n: int, last: str = "") -> list[Robot]:
        """Return at most `n` robots after `last`, ordered by name."""
        return await self._db.read(
            lambda tx: [_read(tx, row) for row in robots.list_page(tx, n, last)]
        )

    async def get(self, name: str) -> Robot:
        """Return the robot. Raises NotFoundError."""

        def work(tx: Transaction) -> Robot:
            row = robots.find(tx, name)
            if row is None:
                raise NotFoundError(f"no robot {name!r}")
            return _read(tx, row)

        return await self._db.read(work)

    async def add(self, name: str, lifetime: float | None, actor: Actor) -> NewRobotSecret:
        """Add a robot that expires after `lifetime` seconds, or never if None.

        Raises AccountNameInvalidError, InputInvalidError, ConflictError.
        """
        parse_account_name(name)
        _require_positive(lifetime)
        secret = new_secret()
        hashed = (await self._keyring.get_hasher()).hash(secret.value)

        def work(tx: Transaction) -> Robot:
            expires = None if lifetime is None else tx.now + int(lifetime * _SECOND)
            row = robots.insert(tx, name, expires)
            if row is None:
                raise ConflictError(f"the robot {name!r} already exists")
            grants.delete_all_of(tx, str(Subject(SubjectKind.ROBOT, name)))
            secrets.insert_for_robot(tx, row, secret.id, hashed)
            record(tx, actor, Event.ROBOT_CREATE, name, expires_at=expires)
            return _read(tx, row)

        robot = await self._db.write(work, actor=actor.name)
        return NewRobotSecret(robot, secret.reveal())

    async def rotate(
        self, name: str, overlap: float, actor: Actor, *, lifetime: float | None = None
    ) -> NewRobotSecret:
        """Create a new secret. The old ones remain valid for `overlap` seconds.

        `lifetime` replaces the expiry of the robot, in seconds from now. Raises NotFoundError,
        InputInvalidError.
        """
        _require_positive(lifetime)
        if overlap < 0:
            raise InputInvalidError("the overlap must not be negative")
        secret = new_secret()
        hashed = (await self._keyring.get_hasher()).hash(secret.value)

        def work(tx: Transaction) -> Robot:
            row = _find_or_raise(tx, name)
            secrets.expire_of_robot(tx, row, tx.now + int(overlap * _SECOND))
            secrets.insert_for_robot(tx, row, secret.id, hashed)
            if lifetime is not None:
                robots.set_expiry(tx, row, tx.now + int(lifetime * _SECOND))
            record(tx, actor, Event.ROBOT_ROTATE, name, overlap=overlap)
            return _read(tx, _find_or_raise(tx, name))

        robot = await self._db.write(work, actor=actor.name)
        return NewRobotSecret(robot, secret.reveal())

    async def remove(self, name: str, actor: Actor) -> None:
        """Remove a robot with its secrets and grants. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            row = _find_or_raise(tx, name)
            grants.delete_all_of(tx, str(Subject(SubjectKind.ROBOT, name)))
            robots.delete(tx, row, ROBOT_SIGN_IN + name)
            record(tx, actor, Event.ROBOT_DELETE, name)

        await self._db.write(work, actor=actor.name)


def _require_positive(lifetime: float | None) -> None:
    if lifetime is not None and lifetime <= 0:
        raise InputInvalidError("the lifetime must be positive")
