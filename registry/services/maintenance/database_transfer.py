"""Copying or moving the database to another one, while writes are refused."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from registry.errors import ConflictError, DatabaseFrozenError, DatabaseUnavailableError
from registry.metadata.engine import migrate, write_freeze
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.migrate import SchemaState
from registry.metadata.engine.transaction import Transaction
from registry.metadata.engine.write_freeze import MoveState
from registry.metadata.maintenance import database_copy

LEASE_S = 60.0
"""Seconds after which the registry accepts writes again if the copying process has died."""

HEARTBEAT_S = 10.0
ATTEMPTS = 5

Keys = Callable[[], Awaitable[Mapping[str, bytes] | None]]
"""Returns rows of private keys for the target database; None selects the keys in the source."""


class Transfer:
    """The copy of the database to another one.

    Writes are refused while the rows are copied, read back and compared. Then the source is marked
    as moved, permanently. Only then does the target become the registry's database.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def run(
        self, target: str, keys: Keys, *, keep: bool, tell: Callable[[str, int], None]
    ) -> dict[str, int]:
        """Copy all rows to `target`, the SQLAlchemy URL of an empty database. Return rows by table.

        With `keep`, the source accepts writes afterwards and the target is only a copy. `tell` is
        as in `copying.copy` and is called on another thread. Raises ConflictError, SchemaError,
        ConfigError, DatabaseUnavailableError. The source then accepts writes again, unless it was
        already marked as moved; another run completes such a move.
        """
        place = parse_url(target)
        if place == self._db.url:
            raise ConflictError("the target is the database that the registry already uses")
        there = (await self._prepare(target)).move
        here = await self._db.read(write_freeze.find)
        if here and there and here.state is MoveState.MOVED and there.token == here.token:
            # an earlier run was interrupted before this step
            await self._confirm(target, here.token)
            return {}
        token = uuid.uuid4().hex
        await self._pause(token, place.render_as_string())
        ended = threading.Event()

        def tell_while_wanted(table: str, rows: int) -> None:
            if ended.is_set():
                raise ConflictError("the copy was interrupted")
            tell(table, rows)

        try:
            async with self._held(token):
                private_keys = await keys()
                counts = await asyncio.to_thread(
                    database_copy.copy,
                    self._db.url.render_as_string(hide_password=False),
                    target,
                    token=token,
                    private_keys=private_keys,
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
        """Accept writes again. With a token, only if that run refuses them."""

        def work(tx: Transaction) -> None:
            row = write_freeze.find(tx)
            if row is not None and (not token or row.token == token):
                write_freeze.release(tx)

        await self._db.write(work, actor="", timeout_s=LEASE_S)
        for table in await self._db.read(write_freeze.list_guarded):
            # The guards have no effect any more, so a failure to remove them is harmless.
            with contextlib.suppress(DatabaseUnavailableError):
                await self._db.write(
                    lambda tx, table=table: write_freeze.remove_guard(tx, table),  # type: ignore[misc]
                    actor="",
                )

    @staticmethod
    async def _prepare(target: str) -> SchemaState:
        """Create the schema if there is none. Return the previous state."""
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
                    lambda tx: write_freeze.freeze(tx, token, place, LEASE_S),
                    actor="",
                    timeout_s=LEASE_S,
                )
            except DatabaseUnavailableError:
                # Another transaction held a lock on a table for longer than the timeout.
                if is_last:
                    raise
        raise AssertionError

    @contextlib.asynccontextmanager
    async def _held(self, token: str) -> AsyncIterator[None]:
        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                with contextlib.suppress(DatabaseUnavailableError):
                    await self._db.write(
                        lambda tx: write_freeze.extend(tx, token, LEASE_S),
                        actor="",
                        timeout_s=LEASE_S,
                    )

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _end(self, token: str, *, keep: bool) -> None:
        """End the copy. Fail if writes were accepted in between, as the copy is then incomplete."""
        done = await self._db.write(
            lambda tx: (
                write_freeze.extend(tx, token, LEASE_S)
                if keep
                else write_freeze.mark_moved(tx, token)
            ),
            actor="",
            timeout_s=LEASE_S,
        )
        if not done:
            raise DatabaseFrozenError(
                "the lease of the copy expired and the registry accepts writes again: run "
                "the copy again"
            )
        if keep:
            await self.release(token)

    @staticmethod
    async def _confirm(target: str, token: str) -> None:
        database = Database(target)
        try:
            await database.write(lambda tx: database_copy.confirm(tx, token), actor="")
        finally:
            await database.close()
