"""The base class of all rules of the state machine."""

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.scenarios.model.content import BYTES_OF, REPOSITORIES, SUBJECTS, TAGS
from tests.scenarios.model.contents import Repository, Session
from tests.scenarios.model.expected import Want
from tests.scenarios.model.look import Inspector, Look, Replay, SessionRow, contents_of, look
from tests.scenarios.model.model import Model
from tests.scenarios.model.world import WORKERS, Clock, Died, World

T = TypeVar("T")

Place = Callable[[], AbstractContextManager[tuple[str, Path]]]
"""A context manager that provides the URL of an empty database and an empty folder."""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

names = st.sampled_from(REPOSITORIES)
picks = st.integers(0, 30)
chances = st.integers(-3, 30)
digests = st.sampled_from(sorted(BYTES_OF))
tags = st.sampled_from(TAGS)
deaths = st.sampled_from((None,) * 60 + tuple(range(12)))


class AbortedError(Exception):
    """The processes died during the step, and others have taken over."""


def step(**strategies: Any) -> Decorator:
    """Declare a rule."""

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def careful(machine: "Machine", **drawn: Any) -> None:
            machine.failed = True
            body(machine, **drawn)
            machine.failed = False

        ruled: Callable[..., None] = rule(**strategies)(careful)  # type: ignore[no-untyped-call]
        return ruled

    return decorate


def risky(**strategies: Any) -> Decorator:
    """Declare a rule during which the processes may die.

    `dies_after` is the number of changes of the store or the database until then. Mostly it is
    None: they do not die.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def mortal(machine: "Machine", dies_after: int | None, **drawn: Any) -> None:
            machine.world.life.fuse = dies_after
            with contextlib.suppress(AbortedError):
                body(machine, **drawn)
            machine.world.life.fuse = None

        return step(dies_after=deaths, **strategies)(mortal)

    return decorate


class Machine(RuleBasedStateMachine):
    """A model, and a real registry that must answer like it."""

    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__()
        self.stack = ExitStack()
        url, folder = self.stack.enter_context(place())
        self.clock = clock
        self.world = World(url, folder, clock)
        self.stack.callback(self.world.close)
        self.model = Model()
        self.inspector = Inspector()
        self.replay = Replay()
        self.ended: list[str] = []
        self.glances = itertools.cycle(itertools.product(REPOSITORIES, TAGS))
        self.failed = False
        self.pending_deletions = 0
        """Number of keys that wait for deletion."""
        self.changed = False
        """Whether a step changed something since the last start."""
        self.touched = True
        """Whether something may have changed since the last full check."""

    # Helpers of the rules

    def ask(
        self, foresee: Callable[[Model], Want], method: str, path: str, **more: Any
    ) -> httpx.Response:
        """Send a request, and fail unless the answer is the one that the model expects."""
        looked = method in {"GET", "HEAD"} and not self.touched
        answer: httpx.Response
        want, answer = self.try_out(foresee, self.world.request(method, path, **more))
        self.touched = not looked
        self.changed = self.changed or not looked
        want.check(answer)
        return answer

    def try_out(
        self, foresee: Callable[[Model], T], work: Coroutine[Any, Any, Any]
    ) -> tuple[T, Any]:
        """Return the result that the model expects and the actual result of some work."""
        mortal = self.world.life.fuse is not None
        before = copy.deepcopy(self.model) if mortal else self.model
        self.touched = True
        self.model.now = self.clock.now()
        known = list(self.model.sessions)
        want = foresee(self.model)
        try:
            got = self.world.run(work)
        except Died:
            self._take_over(before)
            raise AbortedError from None
        self.ended += [upload for upload in known if upload not in self.model.sessions]
        return want, got

    def pick_session(self, pick: int) -> tuple[str, Session]:
        """Return an open session. The caller has checked that there is one."""
        uploads = list(self.model.sessions)
        upload = uploads[pick % len(uploads)]
        return upload, self.model.sessions[upload]

    def pick_link(self, pick: int, name: str, digest: str) -> tuple[str, str]:
        """Return an existing blob, or the given one if `pick` is negative or there is none."""
        links = [(n, d) for n, r in self.model.repositories.items() for d in sorted(r.links)]
        return (name, digest) if pick < 0 or not links else links[pick % len(links)]

    def pick_manifest(self, pick: int, name: str, reference: str) -> tuple[str, str]:
        """Return a manifest by digest or tag, chosen like `pick_link`."""
        known = [
            (n, reference)
            for n, repository in self.model.repositories.items()
            for reference in [*sorted(repository.tags), *repository.manifests]
        ]
        return (name, reference) if pick < 0 or not known else known[pick % len(known)]

    def look(self, after: int = 0) -> Look:
        return look(self.world.engine, self.world.storage, after)

    # After a crash

    def _take_over(self, before: Model) -> None:
        """Restart, and find which of the allowed states the crash left."""
        after = self.model
        self.world.crash()
        found = self.look()
        candidates = [m for m in (after, before) if contents_of(m) == found.contents]
        assert candidates, "half of a request is to be seen"
        self.model = copy.deepcopy(candidates[0])
        self.model.lost &= before.lost
        done = contents_of(before) != contents_of(after) and candidates[0] is after
        self.model.sessions = dict(self._surviving_sessions(before, after, found, done=done))
        self.model.lost = {
            digest
            for digest, (size, key, _) in found.blobs.items()
            if found.objects.get(key) != size
        }
        assert self.model.lost <= before.lost, "bytes were lost"
        self.model.blobs = {**before.blobs, **after.blobs}

    def _surviving_sessions(
        self, before: Model, after: Model, found: Look, *, done: bool
    ) -> Iterator[tuple[str, Session]]:
        """Yield the sessions found, each with at least its acknowledged bytes."""
        for upload in before.sessions:
            gone = upload not in found.sessions
            assert not gone or upload not in after.sessions, "an open session is gone"
            assert gone or not done or upload in after.sessions, "a finished session is there"
        lives = {text: life for life, text in self.inspector.lives.items()}
        for upload, row in found.sessions.items():
            old = before.sessions.get(upload)
            known = old.data if old else b""
            data, published = self._read_session(upload, row, found)
            assert data[: len(known)] == known, "other bytes than were acknowledged"
            life = lives.get(row.generation) if row.generation else None
            yield upload, Session(row.name, life, data, row.active, published)

    def _read_session(self, upload: str, row: SessionRow, found: Look) -> tuple[bytes, str | None]:
        """Return the bytes of a session, and their digest if they were published."""
        if row.key not in found.objects:
            assert found.staged.get(upload, 0) >= row.offset, "acknowledged bytes are gone"
            path = self.world.storage / "staging" / upload
            return (path.read_bytes()[: row.offset] if row.offset else b""), None
        data = (self.world.storage / row.key).read_bytes()
        assert len(data) == row.offset
        _, algorithm, _, name = row.key.split("/")
        return data, f"{algorithm}:{name.partition('.')[0]}"

    # Invariants

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        if not self.touched:
            return
        self.touched = False
        self.failed = True
        found = self.look(self.replay.number)
        self.pending_deletions = len(found.pending_deletions)
        self.inspector.check(self.model, found, self.world.storage)
        self.replay.play(found.changes)
        self.replay.check(found)
        self._glance()
        self.failed = False

    def _glance(self) -> None:
        """Check through the API all sessions, and one other tag in turn."""
        for upload, session in self.model.sessions.items():
            self.see_session(session.name, upload)
        name, tag = next(self.glances)
        self.see_manifest(name, tag)
        self.touched = False

    def teardown(self) -> None:
        with self.stack:
            if not self.failed:
                self._read_all_again()

    def _read_all_again(self) -> None:
        """Read everything through the API, and replay the feed from its first number."""
        for name in REPOSITORIES:
            self._read_repository(name)
        self.see_catalog()
        self.world.restart()
        found = self.look()
        self.inspector.verified.clear()
        self.inspector.check(self.model, found, self.world.storage)
        replay = Replay()
        replay.play(found.changes)
        replay.check(found)

    def _read_repository(self, name: str) -> None:
        repository = self.model.repositories.get(name) or Repository(0)
        for _ in range(WORKERS):
            self.see_tags(name)
        for digest in sorted(repository.links):
            for _ in range(WORKERS):
                self.see_blob(name, digest)
        for reference in [*TAGS, *sorted(repository.manifests)]:
            for _ in range(WORKERS):
                self.see_manifest(name, reference)
        for subject in SUBJECTS if repository.manifests else ():
            self.see_referrers(name, subject)

    # Checks through the API

    def see_session(self, name: str, upload: str) -> None:
        path = f"/v2/{name}/blobs/uploads/{upload}"
        self.ask(lambda model: model.status(name, upload), "GET", path)

    def see_blob(
        self, name: str, digest: str, *, method: str = "GET", asked: str | None = None
    ) -> None:
        def foresee(model: Model) -> Want:
            return model.get_blob(name, digest, None if method == "HEAD" else asked)

        headers = {"Range": asked} if asked else {}
        self.ask(foresee, method, f"/v2/{name}/blobs/{digest}", headers=headers)

    def see_manifest(self, name: str, reference: str, *, method: str = "GET") -> None:
        path = f"/v2/{name}/manifests/{reference}"
        self.ask(lambda model: model.get_manifest(name, reference), method, path)

    def see_referrers(self, name: str, subject: str, artifact_type: str | None = None) -> None:
        self.ask(
            lambda model: model.list_referrers(name, subject, artifact_type),
            "GET",
            f"/v2/{name}/referrers/{subject}",
            params={"artifactType": artifact_type} if artifact_type else None,
        )

    def see_tags(self, name: str, n: int | None = None, last: str | None = None) -> None:
        path = f"/v2/{name}/tags/list"
        self._see_page(lambda model: model.list_tags(name, n, last), path, n, last)

    def see_catalog(self, n: int | None = None, last: str | None = None) -> None:
        self._see_page(lambda model: model.list_catalog(n, last), "/v2/_catalog", n, last)

    def _see_page(
        self, foresee: Callable[[Model], Want], path: str, n: int | None, last: str | None
    ) -> None:
        params = {"n": n, "last": last}
        given = {key: str(value) for key, value in params.items() if value is not None}
        wants = []

        def note_want(model: Model) -> Want:
            wants.append(foresee(model))
            return wants[0]

        answer = self.ask(note_want, "GET", path, params=given)
        [want] = wants
        if want.status != HTTPStatus.OK or "Link" in want.headers:
            return
        entries = answer.json().get("tags") or answer.json()["repositories"]
        target = urlsplit(answer.links["next"]["url"])
        assert target.path == path
        assert parse_qs(target.query) == {"n": [str(n)], "last": [entries[-1]]}
