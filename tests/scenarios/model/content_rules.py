"""Rules about upload sessions and blobs."""

from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition

from registry.auth.policy.principals import Principal
from registry.errors import UploadUnknownError
from registry.oci.names import RepositoryName
from tests.scenarios.model.content import BLOBS, BYTES_OF, REPOSITORIES, digest_of
from tests.scenarios.model.contents import Session
from tests.scenarios.model.expected import Want, refuse
from tests.scenarios.model.machine import Machine, chances, digests, names, picks, risky, step
from tests.scenarios.model.model import Model

ACCEPTED = HTTPStatus.ACCEPTED

any_content = precondition(lambda machine: machine.model.repositories)

pieces = st.sampled_from((b"", b"o", b"ne", b"{", b"}", *BLOBS))
algorithms = st.sampled_from(("sha256", "sha256", "sha512"))
methods = st.sampled_from(("GET", "HEAD"))
asked = st.sampled_from(
    (
        *("", "", "what it has", "bytes=0-", "bytes=0-0", "bytes=1-2", "bytes=-2", "bytes=-0"),
        *("bytes=2-1", "bytes=39-", "bytes=40-", "bytes=-99999", "bytes=0-1,2-3", "lines=0-1"),
        *("bytes=3-30,1-1,-2", "bytes=0-,0-"),
        *("bytes=-", "bytes=1-99999"),
    )
)
spans = st.sampled_from(("none", "right", "overlap", "gap", "short", "long"))


def open_session(machine: Any) -> bool:
    return bool(machine.model.sessions)


def lay_out(how: str, offset: int, data: bytes) -> tuple[int, int] | None:
    """Return first and last byte of a Content-Range, valid or not. None: no header."""
    first = {"overlap": offset - 1, "gap": offset + 1}.get(how, offset)
    length = len(data) + {"short": -1, "long": 1}.get(how, 0)
    if how == "none" or first < 0 or length < 1:
        return None
    return first, first + length - 1


def range_header(span: tuple[int, int] | None) -> dict[str, str]:
    return {"Content-Range": f"{span[0]}-{span[1]}"} if span else {}


class UploadRules(Machine):
    """Upload sessions: started, continued, completed, cancelled, and used by other clients."""

    def _begin(self, name: str, params: dict[str, str], mount: str | None = None) -> str | None:
        """Send the POST. Return the id of a session, or None if a blob was mounted instead."""
        started: list[Session] = []

        def foresee(model: Model) -> Want:
            mounted = model.mount(name, mount, params.get("from")) if mount else None
            if mounted is not None:
                return mounted
            session, want = model.start(name)
            started.append(session)
            return want

        answer = self.ask(foresee, "POST", f"/v2/{name}/blobs/uploads/", params=params)
        if not started:
            return None
        upload = answer.headers["Docker-Upload-UUID"]
        assert answer.headers["Location"] == f"/v2/{name}/blobs/uploads/{upload}"
        assert upload not in self.model.sessions
        self.model.sessions[upload] = started[0]
        return upload

    def _append(self, upload: str, data: bytes, how: str) -> None:
        """Send a PATCH."""
        session = self.model.sessions[upload]
        span = lay_out(how, len(session.data), data)
        self.ask(
            lambda model: model.append(session.name, upload, data, span),
            "PATCH",
            f"/v2/{session.name}/blobs/uploads/{upload}",
            content=data,
            headers=range_header(span),
        )

    def _complete(self, upload: str, data: bytes, how: str, algorithm: str, *, right: bool) -> None:
        """Send the PUT that completes the upload."""
        session = self.model.sessions[upload]
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

    @risky(
        name=names,
        told=st.none() | algorithms,
        chunks=st.lists(pieces, max_size=3),
        finish=st.booleans(),
        algorithm=algorithms,
    )
    def upload(
        self, name: str, told: str | None, chunks: list[bytes], finish: bool, algorithm: str
    ) -> None:
        """Upload in chunks as clients do, completed or not."""
        upload = self._begin(name, {"digest-algorithm": told} if told else {})
        assert upload is not None
        for chunk in chunks:
            self._append(upload, chunk, "none" if finish else "right")
        if finish:
            self._complete(upload, b"", "none", algorithm, right=True)

    @risky(
        name=names,
        digest=digests,
        source=st.none() | st.sampled_from((*REPOSITORIES, "no")),
        pick=chances,
    )
    def mount(self, name: str, digest: str, source: str | None, pick: int) -> None:
        if source:
            source, digest = self.pick_link(pick, source, digest)
        params = {"mount": digest} | ({"from": source} if source else {})
        self._begin(name, params, digest)

    @precondition(open_session)
    @risky(pick=picks, data=pieces, how=spans)
    def append(self, pick: int, data: bytes, how: str) -> None:
        upload, _ = self.pick_session(pick)
        self._append(upload, data, how)

    @precondition(open_session)
    @risky(pick=picks, data=pieces, sent=st.integers(0, 9), ranged=st.booleans(), end=digests)
    def break_off(self, pick: int, data: bytes, sent: int, ranged: bool, end: str) -> None:
        """Break the connection during a PATCH or a PUT. The received bytes are kept."""
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
    @risky(
        pick=picks,
        data=st.just(b"") | pieces,
        how=spans,
        algorithm=algorithms,
        right=st.sampled_from((True, True, True, False)),
    )
    def finish(self, pick: int, data: bytes, how: str, algorithm: str, right: bool) -> None:
        upload, _ = self.pick_session(pick)
        self._complete(upload, data, how, algorithm, right=right)

    @precondition(open_session)
    @risky(pick=picks)
    def cancel(self, pick: int) -> None:
        upload, session = self.pick_session(pick)
        path = f"/v2/{session.name}/blobs/uploads/{upload}"
        self.ask(lambda model: model.cancel(session.name, upload), "DELETE", path)

    @precondition(lambda self: self.model.sessions or self.ended)
    @risky(pick=picks, other=names, verb=st.sampled_from(("GET", "PATCH", "PUT", "DELETE")))
    def look_or_meddle(self, pick: int, other: str, verb: str) -> None:
        """Read the status of a session, or send a request that must not reach it."""
        uploads = [*self.model.sessions, *self.ended]
        upload = uploads[pick % len(uploads)]
        session = self.model.sessions.get(upload)
        name = session.name if session and verb == "GET" else other
        if self.model.find_session(name, upload) and verb != "GET":
            self._meddle_as_another(name, upload)
            return
        self.ask(
            lambda model: model.status(name, upload),
            verb,
            f"/v2/{name}/blobs/uploads/{upload}",
            content=b"" if verb in {"GET", "DELETE"} else b"one",
            params={"digest": digest_of(b"one")} if verb == "PUT" else None,
        )

    def _meddle_as_another(self, name: str, upload: str) -> None:
        uploads, mallory = self.world.worker.opened.registry.uploads, Principal("mallory")
        with pytest.raises(UploadUnknownError):
            self.try_out(lambda _: None, uploads.cancel(RepositoryName(name), mallory, upload))


class BlobRules(Machine):
    """Blobs: pushed in one request, read, deleted, damaged, repaired."""

    def push_bytes(self, name: str, data: bytes, digest: str) -> None:
        """Push the blob in a single POST."""
        self.ask(
            lambda model: model.push_blob(name, data, digest),
            "POST",
            f"/v2/{name}/blobs/uploads/",
            params={"digest": digest},
            content=data,
        )

    @risky(name=names, digest=digests, right=st.sampled_from((True, True, True, False)))
    def push_blob(self, name: str, digest: str, right: bool) -> None:
        self.push_bytes(name, BYTES_OF[digest] + (b"" if right else b"!"), digest)

    @any_content
    @step(name=names, digest=digests, pick=chances, asked=asked, method=methods)
    def read_blob(self, name: str, digest: str, pick: int, asked: str, method: str) -> None:
        name, digest = self.pick_link(pick, name, digest)
        if asked != "what it has":
            self.see_blob(name, digest, method=method, asked=asked)
            return

        def foresee(model: Model) -> Want:
            want = model.get_blob(name, digest)
            return Want(304, {"ETag": f'"{digest}"'}, b"") if want.status == HTTPStatus.OK else want

        etag = {"If-None-Match": f'"other", W/"{digest}"'}
        self.ask(foresee, method, f"/v2/{name}/blobs/{digest}", headers=etag)

    @any_content
    @risky(name=names, digest=digests, pick=chances)
    def delete_blob(self, name: str, digest: str, pick: int) -> None:
        name, digest = self.pick_link(pick, name, digest)
        path = f"/v2/{name}/blobs/{digest}"
        self.ask(lambda model: model.delete_blob(name, digest), "DELETE", path)

    @any_content
    @step(name=names, digest=digests, pick=chances, size=st.sampled_from((None, 0, 1, 70)))
    def damage(self, name: str, digest: str, pick: int, size: int | None) -> None:
        """Remove or resize a file. After the next read the blob is gone in all repositories."""
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
        """Restore the bytes of a lost blob."""
        digest = sorted(self.model.lost)[pick % len(self.model.lost)]
        name = next((n for n, r in self.model.repositories.items() if digest in r.links), None)
        if name is None:
            return
        key = self.look().blobs[digest][1]
        (self.world.storage / key).write_bytes(self.model.blobs[digest])
        self.model.lost.discard(digest)
        self.see_blob(name, digest)
