"""Rules about events that are not requests, and the machine of all rules."""

import dataclasses

from hypothesis import strategies as st
from hypothesis.stateful import precondition
from msgspec.structs import asdict

from registry.auth.policy.principals import OPERATOR
from registry.errors import ManifestUnknownError, RepositoryUnknownError
from registry.oci.names import RepositoryName
from registry.oci.references import Tag, parse_reference
from registry.services.services import Services
from tests.scenarios.model.content_rules import UploadRules, any_content
from tests.scenarios.model.machine import Machine, chances, names, risky, step, tags
from tests.scenarios.model.manifest_rules import ListRules, references

HOUR = 3600 * 1_000_000
EXPIRY = 24 * HOUR
LONG = 31 * HOUR
"""Longer than a grace period and the quarter of one that a HEAD may add."""


class OperatorRules(Machine):
    """The passing of time, jobs, the command line, and the end of processes."""

    @property
    def registry(self) -> Services:
        return self.world.worker.opened.registry

    @any_content
    @risky(name=names)
    def delete_repository(self, name: str) -> None:
        self._count(name)

        async def delete() -> dict[str, int] | None:
            try:
                deleted = await self.registry.repositories.delete(RepositoryName(name), OPERATOR)
            except RepositoryUnknownError:
                return None
            return asdict(deleted)

        want, got = self.try_out(lambda model: model.delete_repository(name), delete())
        assert got == (dataclasses.asdict(want) if want else None)

    def _count(self, name: str) -> None:
        async def count() -> dict[str, int] | None:
            try:
                found = await self.registry.repositories.get(RepositoryName(name))
                return asdict(found.counts)
            except RepositoryUnknownError:
                return None

        want, got = self.try_out(lambda model: model.count(name), count())
        assert got == (dataclasses.asdict(want) if want else None)

    @any_content
    @risky(source=names, reference=references, pick=chances, into=names, tag=tags)
    def copy_tag(self, source: str, reference: str, pick: int, into: str, tag: str) -> None:
        source, reference = self.pick_manifest(pick, source, reference)

        async def copy() -> str | None:
            origin, destination = RepositoryName(source), RepositoryName(into)
            known = parse_reference(reference)
            try:
                return str(
                    await self.registry.tags.copy(origin, known, destination, Tag(tag), OPERATOR)
                )
            except (ManifestUnknownError, RepositoryUnknownError):
                return None

        want, got = self.try_out(lambda model: model.copy(source, reference, into, tag), copy())
        assert got == want

    @precondition(lambda self: self.model.sessions)
    @risky(hours=st.sampled_from((1, 15, 25)))
    def expire(self, hours: int) -> None:
        """Let time pass, and run the job."""
        self.clock.leaps += hours * HOUR
        before = self.clock.now() - EXPIRY
        work = self.registry.uploads.expire(before)
        want, got = self.try_out(lambda model: model.expire(before), work)
        assert got == want

    @precondition(lambda machine: machine.pending_deletions)
    @risky()
    def sweep(self) -> None:
        """Delete pending keys. Then the store holds exactly the objects that rows name."""
        pending_deletions = len(self.look().pending_deletions)
        _, swept = self.try_out(lambda _: None, self.registry.deletions.sweep())
        assert swept == pending_deletions
        found = self.look()
        assert not found.pending_deletions
        assert found.objects.keys() <= {key for _, key, _ in found.blobs.values()} | {
            row.key for row in found.sessions.values()
        }

    @any_content
    @step()
    def collect(self) -> None:
        """Let time pass, and run the job until nothing is left to do."""
        self.clock.leaps += LONG

        async def work() -> None:
            while await self.registry.collector.run():
                pass

        self.try_out(lambda model: model.collect(), work())
        assert self.look().blobs.keys() == {
            digest for held in self.model.repositories.values() for digest in held.links
        }

    @precondition(lambda machine: machine.changed)
    @step(orderly=st.booleans())
    def restart(self, orderly: bool) -> None:
        self.changed = False
        if orderly:
            self.world.restart()
        else:
            self.world.crash()


class Registries(UploadRules, ListRules, OperatorRules):
    """The machine of all rules."""
