"""Workers carry out the runs of syncs: one run of a mirror at a time, in all processes."""

import asyncio
import contextlib
import logging
import time
import uuid

import msgspec

from registry.auth.policy.principals import MIRROR
from registry.errors import DatabaseUnavailableError, RegistryError
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import sync_runs, sync_schedules
from registry.metadata.mirrors.sync_runs import LEASE, SyncRunRow, SyncState
from registry.services.maintenance.leases import Leases
from registry.services.mirrors.mirrors import Mirrors
from registry.services.syncs.pull import Pull, PullServices
from registry.services.syncs.report import SyncLog
from registry.services.syncs.syncs import SyncRun, encode_scheduled

logger = logging.getLogger(__name__)

LEASE_S = 30.0
"""Seconds after which another process may continue the run of a dead process."""

NOTE_EVERY_S = 1.0
"""Seconds between two records of the progress, which also extend the lease."""

LOOK_EVERY_S = 2.0
"""Seconds between two looks for runs to start."""

MOST_RUNS = 4
"""Number of mirrors that a process synchronizes at the same time."""


class SyncWorker:
    """The worker of this process."""

    def __init__(
        self, services: PullServices, mirrors: Mirrors, leases: Leases, *, read_only: bool = False
    ) -> None:
        self._services = services
        self._db: Database = services.database
        self._mirrors = mirrors
        self._leases = leases
        self._read_only = read_only

    async def is_due(self) -> bool:
        """Return whether a schedule is due or a run can be started."""
        if self._read_only:
            return False

        def work(tx: Transaction) -> bool:
            return sync_schedules.is_any_due(tx) or bool(sync_runs.list_startable(tx))

        return await self._db.read(work)

    async def run(self) -> int:
        """Carry out runs until there is none left. Return the number of runs.

        A cancelled call leaves its runs to the next one.
        """
        running: dict[str, asyncio.Task[None]] = {}
        count = 0
        try:
            while True:
                await self._db.write(_queue_due, actor=MIRROR.name)
                for row in await self._db.read(sync_runs.list_startable):
                    if row.mirror not in running and len(running) < MOST_RUNS:
                        task = asyncio.create_task(self.work_on(row.mirror, row.id))
                        running[row.mirror] = task
                if not running:
                    return count
                tasks = running.values()
                done, _ = await asyncio.wait(
                    tasks, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                running = {name: task for name, task in running.items() if task not in done}
                count += len(done)
                for task in done:
                    task.result()
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def work_on(self, mirror: str, number: int) -> None:
        """Carry out a run, unless another process does, or synchronizes the same mirror."""
        lease, holder = LEASE + mirror, uuid.uuid4().hex
        if not await self._leases.claim(lease, holder, LEASE_S):
            return
        try:
            await self._carry_out(mirror, number, holder)
        finally:
            with contextlib.suppress(DatabaseUnavailableError):  # it expires
                await self._leases.release(lease, holder)

    async def _carry_out(self, mirror: str, number: int, holder: str) -> None:
        row = await self._db.write(lambda tx: sync_runs.start(tx, number), actor=MIRROR.name)
        if row is None:
            return
        log = SyncLog()
        if row.state is SyncState.CANCELLING:  # its process died before it saw this
            await self._end(row, SyncState.CANCELLED, log)
            return
        working = asyncio.ensure_future(self._work(row, log))
        try:
            state = await self._watch(row, holder, working, log)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        if state is not None:
            await self._end(row, state, log)
            logger.info("sync of %s, run %d: %s", mirror, number, state.value)

    async def _work(self, row: SyncRunRow, log: SyncLog) -> None:
        """Do the work of a run. Its failures are in the log."""
        try:
            run = SyncRun.of_row(row)
            mirror = await self._mirrors.get(run.mirror)
            options, is_dry = run.request.options, run.request.is_dry
            await Pull(self._services, mirror, options, log, is_dry=is_dry).run()
        except DatabaseUnavailableError:
            raise
        except RegistryError as error:
            log.counts.failed += 1
            log.note(error.message)
        except Exception:
            # A run that meets a bug would be repeated without end.
            log.counts.failed += 1
            log.note("internal error; the log of the server has its traceback")
            logger.exception("sync of %s, run %d failed", row.mirror, row.id)

    async def _watch(
        self, row: SyncRunRow, holder: str, working: asyncio.Future[None], log: SyncLog
    ) -> SyncState | None:
        """Record the progress until the work has ended, and return the final state.

        Returns None if the lease is lost, or the run was deleted. Raises the error of the work.
        """
        noted_at, version = time.monotonic(), -1
        while not (await asyncio.wait([working], timeout=NOTE_EVERY_S))[0]:
            report = None
            if log.version != version:
                version, report = log.version, _encode(log.make_report())
            try:
                state = await self._note(row, holder, _encode(log.counts), report)
                noted_at = time.monotonic()
            except DatabaseUnavailableError:
                if time.monotonic() > noted_at + LEASE_S / 2:
                    raise
                version = -1
                continue
            if state is SyncState.CANCELLING:
                return SyncState.CANCELLED
            if state is None:
                return None
        working.result()
        return SyncState.FAILED if log.counts.failed else SyncState.SUCCEEDED

    async def _note(
        self, row: SyncRunRow, holder: str, progress: str, report: str | None
    ) -> SyncState | None:
        """Record the progress and extend the lease. Returns the state, or None if it is lost."""

        def work(tx: Transaction) -> SyncState | None:
            if not leases.claim(tx, LEASE + row.mirror, holder, LEASE_S):
                return None
            return sync_runs.note(tx, row.id, progress, report)

        return await self._db.write(work, actor=MIRROR.name, durable=False)

    async def _end(self, row: SyncRunRow, state: SyncState, log: SyncLog) -> None:
        progress, report = _encode(log.counts), _encode(log.make_report())
        await self._db.write(
            lambda tx: sync_runs.end(tx, row.id, state, progress, report), actor=MIRROR.name
        )


def _queue_due(tx: Transaction) -> None:
    """Add a run for each schedule that is due, unless its last one has not ended."""
    for row in sync_schedules.advance_due(tx):
        if not sync_runs.is_open(tx, row.id):
            sync_runs.insert(tx, row.mirror, row.id, encode_scheduled(row))


def _encode(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
