"""Copying the whole database to another, in a pause of all changes."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from registry.errors import ConflictError, DatabaseMovingError, DatabaseUnavailableError
from registry.metadata import copying, migrate, moves
from registry.metadata.database import Database, parse_url
from registry.metadata.migrate import SchemaState
from registry.metadata.moves import MoveState
from registry.metadata.transaction import Transaction

LEASE = 60.0
"""Seconds after which a registry takes changes again whose copy died."""

BEAT = 10.0
ATTEMPTS = 5

Keys = Callable[[], Awaitable[Mapping[str, bytes] | None]]
"""Gives the rows of private keys for the other database; None: those that are here."""


class Transfer:
    """The order: changes are refused, rows copied, read back and compared; then this database is
    marked as moved, for good, and only then is the other one the registry's.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def run(
        self, target: str, keys: Keys, *, keep: bool, tell: Callable[[str, int], None]
    ) -> dict[str, int]:
        """Copy all to `target`, a SQLAlchemy URL of a database that is empty; rows by table.

        `keep`: afterwards this database takes changes again, and the other is a copy. `tell` as in
        `copying.copy`, called on another thread. ConflictError, SchemaError, ConfigError,
        DatabaseUnavailableError: then nothing has happened.
        """
        place = parse_url(target)
        if place == self._db.url:
            raise ConflictError("that is the database that the registry is in")
        there = (await self._prepare(target)).move
        here = await self._db.read(moves.find)
        if here and there and here.state is MoveState.MOVED and there.token == here.token:
            await self._confirm(target, here.token)  # what an earlier run did not come to
            return {}
        token = uuid.uuid4().hex
        await self._pause(token, place.render_as_string())
        ended = threading.Event()

        def tell_while_wanted(table: str, rows: int) -> None:
            if ended.is_set():
                raise ConflictError("the copy was stopped")
            tell(table, rows)

        try:
            async with self._held(token):
                vault = await keys()
                counts = await asyncio.to_thread(
                    copying.copy,
                    self._db.url.render_as_string(hide_password=False),
                    target,
                    token=token,
                    vault=vault,
                    tell=tell_while_wanted,
                )
            await self._end(token, keep=keep)
        except BaseException:
            ended.set()
            with contextlib.suppress(DatabaseUnavailableError):
                await self.release(token)
            raise
        await self._confirm(target, token)
        return counts

    async def release(self, token: str = "") -> None:
        """Take changes again; with a token, only if the pause is of that run."""

        def work(tx: Transaction) -> None:
            row = moves.find(tx)
            if row is not None and (not token or row.token == token):
                moves.release(tx)

        await self._db.write(work, actor="", patience=LEASE)
        for table in await self._db.read(moves.list_guarded):
            # They refuse nothing any more: what cannot be removed now is no harm.
            with contextlib.suppress(DatabaseUnavailableError):
                await self._db.write(
                    lambda tx, table=table: moves.remove_guard(tx, table),  # type: ignore[misc]
                    actor="",
                )

    @staticmethod
    async def _prepare(target: str) -> SchemaState:
        """Make the schema, if there is none; what there was."""
        database = Database(target)
        try:
            state = await migrate.read_state(database)
            if state.version == 0:
                await asyncio.to_thread(migrate.upgrade, target)
            elif not state.filling:
                migrate.require_usable(state)
            return state
        finally:
            await database.close()

    async def _pause(self, token: str, place: str) -> None:
        for is_last in (*[False] * ATTEMPTS, True):
            try:
                return await self._db.write(
                    lambda tx: moves.pause(tx, token, place, LEASE), actor="", patience=LEASE
                )
            except DatabaseUnavailableError:
                # Somebody held a table for longer than it waits.
                if is_last:
                    raise
        raise AssertionError

    @contextlib.asynccontextmanager
    async def _held(self, token: str) -> AsyncIterator[None]:
        async def beat() -> None:
            while True:
                await asyncio.sleep(BEAT)
                with contextlib.suppress(DatabaseUnavailableError):
                    await self._db.write(
                        lambda tx: moves.extend(tx, token, LEASE), actor="", patience=LEASE
                    )

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _end(self, token: str, *, keep: bool) -> None:
        """The pause has lasted until now, or what was copied is not all there is."""
        done = await self._db.write(
            lambda tx: moves.extend(tx, token, LEASE) if keep else moves.finish(tx, token),
            actor="",
            patience=LEASE,
        )
        if not done:
            raise DatabaseMovingError(
                "the copy took too long between two signs of life, and the registry has taken "
                "changes again: run it again"
            )
        if keep:
            await self.release(token)

    @staticmethod
    async def _confirm(target: str, token: str) -> None:
        database = Database(target)
        try:
            await database.write(lambda tx: copying.confirm(tx, token), actor="")
        finally:
            await database.close()
