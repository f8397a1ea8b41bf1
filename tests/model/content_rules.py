"""Rules about upload sessions and blobs."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition

from registry.auth.principals import Principal
from registry.errors import UploadUnknownError
from registry.oci.names import RepositoryName
from tests.model.content import BLOBS, BYTES_OF, REPOSITORIES, digest_of
from tests.model.expected import Want, refuse
from tests.model.machine import Machine, chances, digests, names, picks, step
from tests.model.model import Model

ACCEPTED = HTTPStatus.ACCEPTED

pieces = st.sampled_from((b"", b"o", b"ne", b"{", b"}", *BLOBS))
algorithms = st.sampled_from(("sha256", "sha256", "sha512"))
ranges = st.sampled_from(
    ("bytes=0-", "bytes=0-0", "bytes=1-2", "bytes=-2", "bytes=-0", "bytes=2-1", "bytes=5999-")
    + ("bytes=6000-", "bytes=-99999", "bytes=0-1,2-3", "lines=0-1", "bytes=-", "bytes=1-99999")
)
spans = st.sampled_from(("none", "right", "overlap", "gap", "short", "long"))


def open_session(machine: Any) -> bool:
    return bool(machine.model.sessions)


def lay_out(how: str, offset: int, data: bytes) -> tuple[int, int] | None:
    """First and last byte of a Content-Range that fits or does not; None: no such header."""
    first = {"overlap": offset - 1, "gap": offset + 1}.get(how, offset)
    length = len(data) + {"short": -1, "long": 1}.get(how, 0)
    if how == "none" or first < 0 or length < 1:
        return None
    return first, first + length - 1


def range_header(span: tuple[int, int] | None) -> dict[str, str]:
    return {"Content-Range": f"{span[0]}-{span[1]}"} if span else {}


class UploadRules(Machine):
    """Sessions: begun, continued, finished, cancelled, and meddled with."""

    def _begin(self, name: str, params: dict[str, str], mount: str | None = None) -> None:
        """POST; a session, or a blob where it could be mounted."""
        started = []

        def foresee(model: Model) -> Want:
            mounted = model.mount(name, mount, params.get("from")) if mount else None
            if mounted is not None:
                return mounted
            session, want = model.start(name)
            started.append(session)
            return want

        answer = self.ask(foresee, "POST", f"/v2/{name}/blobs/uploads/", params=params)
        for session in started:
            upload = answer.headers["Docker-Upload-UUID"]
            assert answer.headers["Location"] == f"/v2/{name}/blobs/uploads/{upload}"
            assert upload not in self.model.sessions
            self.model.sessions[upload] = session

    @step(name=names, algorithm=st.none() | algorithms)
    def start(self, name: str, algorithm: str | None) -> None:
        self._begin(name, {"digest-algorithm": algorithm} if algorithm else {})

    @step(
        name=names,
        digest=digests,
        source=st.none() | st.sampled_from((*REPOSITORIES, "no")),
        pick=chances,
    )
    def mount(self, name: str, digest: str, source: str | None, pick: int | None) -> None:
        if source and pick is not None:
            source, digest = self.pick_link(pick, source, digest)
        params = {"mount": digest} | ({"from": source} if source else {})
        self._begin(name, params, digest)

    @precondition(open_session)
    @step(pick=picks, data=pieces, how=spans)
    def patch(self, pick: int, data: bytes, how: str) -> None:
        upload, session = self.pick_session(pick)
        span = lay_out(how, len(session.data), data)
        self.ask(
            lambda model: model.append(session.name, upload, data, span),
            "PATCH",
            f"/v2/{session.name}/blobs/uploads/{upload}",
            content=data,
            headers=range_header(span),
        )

    @precondition(open_session)
    @step(pick=picks, data=pieces, sent=st.integers(0, 9), ranged=st.booleans(), end=digests)
    def break_off(self, pick: int, data: bytes, sent: int, ranged: bool, end: str) -> None:
        """A PATCH, or a PUT, whose connection breaks: what arrived is kept."""
        upload, session = self.pick_session(pick)
        if session.published:
            return
        span = lay_out("right" if ranged else "none", len(session.data), data)
        verb = "PATCH" if sent % 2 else "PUT"

        def foresee(model: Model) -> int | None:
            want = model.append(session.name, upload, data[:sent], None)
            return None if want.status == ACCEPTED else want.status

        work = self.world.send_cut(
            verb,
            f"/v2/{session.name}/blobs/uploads/{upload}",
            f"digest={end}" if verb == "PUT" else "",
            range_header(span),
            data[:sent],
        )
        want, got = self.try_out(foresee, work)
        assert got == want

    @precondition(open_session)
    @step(
        pick=picks,
        data=st.just(b"") | pieces,
        how=spans,
        algorithm=algorithms,
        right=st.sampled_from((True, True, True, False)),
    )
    def finish(self, pick: int, data: bytes, how: str, algorithm: str, right: bool) -> None:
        upload, session = self.pick_session(pick)
        span = lay_out(how, len(session.data), data)
        whole = session.data + (b"" if session.published else data)
        digest = digest_of(whole + (b"" if right else b"!"), algorithm)
        self.ask(
            lambda model: model.complete(session.name, upload, data, span, digest),
            "PUT",
            f"/v2/{session.name}/blobs/uploads/{upload}",
            params={"digest": digest},
            content=data,
            headers=range_header(span),
        )

    @precondition(open_session)
    @step(pick=picks)
    def cancel(self, pick: int) -> None:
        upload, session = self.pick_session(pick)
        path = f"/v2/{session.name}/blobs/uploads/{upload}"
        self.ask(lambda model: model.cancel(session.name, upload), "DELETE", path)

    @precondition(open_session)
    @step(pick=picks)
    def status(self, pick: int) -> None:
        upload, session = self.pick_session(pick)
        path = f"/v2/{session.name}/blobs/uploads/{upload}"
        self.ask(lambda model: model.status(session.name, upload), "GET", path)

    def _meddle(self, name: str, upload: str, verb: str) -> None:
        """A request to what is no session here: refused, and nothing comes of it."""
        self.ask(
            lambda model: model.status(name, upload),
            verb,
            f"/v2/{name}/blobs/uploads/{upload}",
            content=b"" if verb in {"GET", "DELETE"} else b"one",
            params={"digest": digest_of(b"one")} if verb == "PUT" else None,
        )

    @precondition(open_session)
    @step(pick=picks, other=names, verb=st.sampled_from(("GET", "PATCH", "PUT", "DELETE")))
    def meddle_from_elsewhere(self, pick: int, other: str, verb: str) -> None:
        upload, session = self.pick_session(pick)
        if session.name != other:
            self._meddle(other, upload, verb)

    @precondition(lambda self: self.ended)
    @step(pick=picks, name=names, verb=st.sampled_from(("GET", "PATCH", "PUT", "DELETE")))
    def meddle_with_ended(self, pick: int, name: str, verb: str) -> None:
        self._meddle(name, self.ended[-1 - pick % len(self.ended)], verb)

    @precondition(open_session)
    @step(pick=picks)
    def meddle_as_another(self, pick: int) -> None:
        upload, session = self.pick_session(pick)
        uploads, name = self.world.worker.opened.registry.uploads, RepositoryName(session.name)
        work: Callable[..., Awaitable[object]]
        for work in (uploads.get, uploads.cancel):
            with pytest.raises(UploadUnknownError):
                self.try_out(lambda _: None, _started(work(name, Principal("mallory"), upload)))


async def _started(work: Awaitable[object]) -> object:
    return await work


class BlobRules(Machine):
    """Blobs: pushed in one request, read, deleted, damaged, healed."""

    def push_bytes(self, name: str, data: bytes, digest: str) -> None:
        """POST with everything in it."""
        self.ask(
            lambda model: model.push_blob(name, data, digest),
            "POST",
            f"/v2/{name}/blobs/uploads/",
            params={"digest": digest},
            content=data,
        )

    @step(name=names, digest=digests, right=st.sampled_from((True, True, True, False)))
    def push_blob(self, name: str, digest: str, right: bool) -> None:
        self.push_bytes(name, BYTES_OF[digest] + (b"" if right else b"!"), digest)

    @step(
        name=names, digest=digests, pick=chances, asked=st.none() | ranges, head=st.booleans()
    )
    def read_blob(self, name: str, digest: str, pick: int | None, asked: str | None, head: bool) -> None:
        name, digest = self.pick_link(pick, name, digest)
        self.see_blob(name, digest, method="HEAD" if head else "GET", asked=asked)

    @step(name=names, digest=digests, pick=chances)
    def revalidate_blob(self, name: str, digest: str, pick: int | None) -> None:
        name, digest = self.pick_link(pick, name, digest)

        def foresee(model: Model) -> Want:
            want = model.get_blob(name, digest)
            return Want(304, {"ETag": f'"{digest}"'}, b"") if want.status == HTTPStatus.OK else want

        etag = {"If-None-Match": f'"other", W/"{digest}"'}
        self.ask(foresee, "GET", f"/v2/{name}/blobs/{digest}", headers=etag)

    @step(name=names, digest=digests, pick=chances)
    def delete_blob(self, name: str, digest: str, pick: int | None) -> None:
        name, digest = self.pick_link(pick, name, digest)
        path = f"/v2/{name}/blobs/{digest}"
        self.ask(lambda model: model.delete_blob(name, digest), "DELETE", path)

    @step(name=names, digest=digests, pick=chances, size=st.sampled_from((None, 0, 1, 7000)))
    def damage(self, name: str, digest: str, pick: int | None, size: int | None) -> None:
        """Bytes vanish, or get another length: from the next look the blob is gone everywhere."""
        name, digest = self.pick_link(pick, name, digest)
        if not self.model.is_readable(name, digest):
            return
        length, key, _ = self.look().blobs[digest]
        file = self.world.storage / key
        if size == length:
            return
        file.chmod(0o600)
        if size is None:
            file.unlink()
        else:
            with file.open("r+b") as opened:
                opened.truncate(size)
        self.model.lost.add(digest)
        self.inspector.verified.discard(key)
        self.ask(lambda _: refuse(404, "BLOB_UNKNOWN"), "HEAD", f"/v2/{name}/blobs/{digest}")

    @precondition(lambda self: self.model.lost)
    @step(pick=picks)
    def mend(self, pick: int) -> None:
        """Somebody puts the bytes back."""
        digest = sorted(self.model.lost)[pick % len(self.model.lost)]
        name = next((n for n, r in self.model.repositories.items() if digest in r.links), None)
        if name is None:
            return
        key = self.look().blobs[digest][1]
        (self.world.storage / key).write_bytes(self.model.blobs[digest])
        self.model.lost.discard(digest)
        self.see_blob(name, digest)
