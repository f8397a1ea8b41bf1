"""Failures of single tags and repositories, which do not end a sync."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from registry.errors import DatabaseUnavailableError, RegistryError, UpstreamUnavailableError
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.syncs.report import SyncLog
from storage.errors import StoreError

T = TypeVar("T")

MOST_IN_A_ROW = 5
"""Number of requests in a row without an answer after which a server counts as down."""


class Failures:
    """The failures of a sync, which its log names."""

    def __init__(self, log: SyncLog) -> None:
        self._log = log
        self._in_a_row = 0

    async def attempt(self, where: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of `work`, or None if it fails.

        `where` names the repository or the image. Raises errors of the database, and the error of a
        server that is down.
        """

        def note(problem: str) -> None:
            self._log.counts.failed += 1
            self._log.note(f"{where}: {problem}")

        return await self._attempt(note, work)

    async def attempt_change(
        self, name: RepositoryName, tag: Tag, work: Callable[[], Awaitable[T]]
    ) -> T | None:
        """Do as `attempt` for a planned change of a tag."""
        return await self._attempt(lambda problem: self._log.fail(name, tag, problem), work)

    async def _attempt(
        self, note: Callable[[str], None], work: Callable[[], Awaitable[T]]
    ) -> T | None:
        try:
            result = await work()
        except DatabaseUnavailableError:
            raise
        except UpstreamUnavailableError as error:
            note(error.message)
            self._in_a_row += 1
            if self._in_a_row >= MOST_IN_A_ROW:
                raise
            return None
        except RegistryError as error:
            note(error.message)
            return None
        except StoreError as error:
            note(str(error))
            return None
        self._in_a_row = 0
        return result
