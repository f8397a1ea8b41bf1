"""A model of the registry as dictionaries: the HTTP contract without the implementation.

Each method takes a request, changes the dictionaries, and returns the expected answer. Digests are
strings here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tests.scenarios.model.content import NAMED, Document, digest_of
from tests.scenarios.model.contents import Counted, Repository, Session, Stored
from tests.scenarios.model.expected import (
    BLOB_UNKNOWN,
    MANIFEST_UNKNOWN,
    NAME_UNKNOWN,
    UPLOAD_BUSY,
    UPLOAD_UNKNOWN,
    Want,
    refuse,
)
from tests.scenarios.model.ranges import cut_all


def _session_headers(name: str, upload: str, size: int) -> dict[str, str | None]:
    return {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Range": f"0-{max(0, size - 1)}",
        "Docker-Upload-UUID": upload,
    }


def _created(name: str, kind: str, digest: str) -> Want:
    location = f"/v2/{name}/{kind}/{digest}"
    return Want(201, {"Location": location, "Docker-Content-Digest": digest}, b"")


@dataclass
class Model:
    """All repositories and sessions, and the bytes of every blob."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Blobs whose bytes are missing on disk, as the registry knows."""
    lives: int = 0
    now: int = 0

    # Repositories

    def ensure(self, name: str) -> Repository:
        if name not in self.repositories:
            self.lives += 1
            self.repositories[name] = Repository(self.lives)
        return self.repositories[name]

    def _remove_if_empty(self, name: str) -> None:
        repository = self.repositories[name]
        if repository.manifests or repository.links:
            return
        del self.repositories[name]
        for session in self.sessions.values():
            if session.generation == repository.generation:
                session.generation = None

    def count(self, name: str) -> Counted | None:
        repository = self.repositories.get(name)
        if repository is None:
            return None
        sizes = [len(m.document.raw) for m in repository.manifests.values()]
        sizes += [len(self.blobs[digest]) for digest in repository.links]
        return Counted(
            len(repository.tags), len(repository.manifests), len(repository.links), sum(sizes)
        )

    def delete_repository(self, name: str) -> Counted | None:
        counted = self.count(name)
        if counted is not None:
            gone = self.repositories.pop(name)
            for session in self.sessions.values():
                if session.generation == gone.generation:
                    session.active = 0  # cannot be cancelled by a client: the expiry job deletes it
        return counted

    def list_catalog(self, n: int | None, last: str | None) -> Want:
        names, more = _page(self.repositories, n, last)
        return Want(200, {} if more else {"Link": None}, json={"repositories": names})

    def list_tags(self, name: str, n: int | None, last: str | None) -> Want:
        repository = self.repositories.get(name)
        if repository is None:
            return NAME_UNKNOWN
        tags, more = _page(repository.tags, n, last)
        return Want(200, {} if more else {"Link": None}, json={"name": name, "tags": tags})

    # Upload sessions

    def start(self, name: str) -> tuple[Session, Want]:
        """Start a session. Its id is known only from the real answer."""
        repository = self.repositories.get(name)
        session = Session(name, repository.generation if repository else None, b"", self.now)
        return session, Want(202, {"Range": "0-0"}, b"")

    def find_session(self, name: str, upload: str) -> Session | None:
        session = self.sessions.get(upload)
        if session is None or session.name != name:
            return None
        repository = self.repositories.get(name)
        generation = repository.generation if repository else None
        return session if session.generation in {None, generation} else None

    def status(self, name: str, upload: str) -> Want:
        session = self.find_session(name, upload)
        if session is None:
            return UPLOAD_UNKNOWN
        return Want(204, _session_headers(name, upload, len(session.data)), b"")

    def _receive(
        self, upload: str, session: Session, data: bytes, span: tuple[int, int] | None
    ) -> Want | None:
        """Append the bytes to the session. Return the refusal, or None."""
        size = len(session.data)
        if span is not None and span[0] != size:
            headers = _session_headers(session.name, upload, size)
            return refuse(416, "BLOB_UPLOAD_INVALID", headers=headers)
        if span is not None and span[1] - span[0] + 1 != len(data):
            return refuse(400, "SIZE_INVALID")
        session.data += data
        session.active = self.now
        return None

    def append(self, name: str, upload: str, data: bytes, span: tuple[int, int] | None) -> Want:
        session = self.find_session(name, upload)
        if session is None:
            return UPLOAD_UNKNOWN
        if session.published:
            return UPLOAD_BUSY
        refusal = self._receive(upload, session, data, span)
        headers = _session_headers(name, upload, len(session.data))
        return refusal or Want(202, headers, b"")

    def complete(
        self, name: str, upload: str, data: bytes, span: tuple[int, int] | None, digest: str
    ) -> Want:
        session = self.find_session(name, upload)
        if session is None:
            return UPLOAD_UNKNOWN
        if session.published:
            if session.published != digest:
                return UPLOAD_BUSY
        else:
            refusal = self._receive(upload, session, data, span)
            if refusal is not None:
                return refusal
        del self.sessions[upload]
        return self.push_blob(name, session.data, digest)

    def cancel(self, name: str, upload: str) -> Want:
        session = self.find_session(name, upload)
        if session is None:
            return UPLOAD_UNKNOWN
        if session.published:
            return UPLOAD_BUSY
        del self.sessions[upload]
        return Want(204, {}, b"")

    def expire(self, before: int) -> int:
        idle = [upload for upload, s in self.sessions.items() if s.active < before]
        for upload in idle:
            del self.sessions[upload]
        return len(idle)

    # Blobs

    def push_blob(self, name: str, data: bytes, digest: str) -> Want:
        if digest_of(data, digest.partition(":")[0]) != digest:
            return refuse(400, "DIGEST_INVALID")
        self.blobs[digest] = data
        self.lost.discard(digest)
        self._link(name, digest)
        return _created(name, "blobs", digest)

    def _link(self, name: str, digest: str) -> None:
        repository = self.ensure(name)
        repository.links.add(digest)
        repository.settle(digest, "blob")

    def mount(self, name: str, digest: str, source: str | None) -> Want | None:
        """Mount the blob. Return None if an ordinary session starts instead."""
        sources = [source] if source else sorted(self.repositories)
        linking = [s for s in sources if digest in self._links(s)]
        if not linking or digest in self.lost:
            return None
        self._link(name, digest)
        return _created(name, "blobs", digest)

    def _links(self, name: str) -> set[str]:
        repository = self.repositories.get(name)
        return repository.links if repository else set()

    def is_readable(self, name: str, digest: str) -> bool:
        return digest in self._links(name) and digest not in self.lost

    def get_blob(self, name: str, digest: str, asked: str | None = None) -> Want:
        if not self.is_readable(name, digest):
            return BLOB_UNKNOWN
        data = self.blobs[digest]
        headers = {
            "Docker-Content-Digest": digest,
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
            "Content-Encoding": None,
        }
        cuts = cut_all(asked, len(data)) if asked else None
        if cuts is None or sum(last - first + 1 for first, last in cuts) > len(data):
            length = str(len(data))
            return Want(200, {**headers, "Content-Length": length, "Content-Range": None}, data)
        if not cuts:
            return Want(416, {"Content-Range": f"bytes */{len(data)}"})
        parts = [(f"bytes {a}-{b}/{len(data)}", data[a : b + 1]) for a, b in cuts]
        if len(parts) > 1:
            del headers["Content-Type"]
            return Want(206, {**headers, "Content-Range": None}, parts=parts)
        [(content_range, body)] = parts
        headers |= {"Content-Length": str(len(body)), "Content-Range": content_range}
        return Want(206, headers, body)

    def delete_blob(self, name: str, digest: str) -> Want:
        if digest not in self._links(name):
            return BLOB_UNKNOWN
        users = self.repositories[name].users_of(digest)
        if users:
            allow: dict[str, str | None] = {"Allow": "GET, HEAD"}
            return refuse(405, "UNSUPPORTED", headers=allow, detail={"manifests": users})
        self.repositories[name].links.remove(digest)
        self._remove_if_empty(name)
        return Want(202, {}, b"")

    def collect(self) -> None:
        """Collect everything that was unreferenced for a grace period. Untagged manifests stay."""
        for name, repository in list(self.repositories.items()):
            repository.links = {
                digest for digest in repository.links if repository.users_of(digest)
            }
            self._remove_if_empty(name)
        self.lost &= {digest for held in self.repositories.values() for digest in held.links}

    # Manifests

    def put_manifest(
        self,
        name: str,
        document: Document,
        digest: str,
        *,
        tags: list[str],
        media_type: str | None = None,
        tells_tags: bool = False,
        match: str | None = None,
        absent: bool = False,
    ) -> Want:
        """Push a manifest.

        `tells_tags` is whether the tags came from the query. `match` and `absent` are a
        precondition.
        """
        if digest_of(document.raw, digest.partition(":")[0]) != digest:
            return refuse(400, "DIGEST_INVALID")
        held = self.repositories.get(name) or Repository(0)
        for tag in tags:
            if _is_moved(held.tags.get(tag), match, absent=absent):
                return refuse(412, "DENIED")
        named = NAMED[document.label]
        present = (held.links - self.lost) | held.manifests.keys()
        missing = sorted(named.required - present)
        if missing:
            return refuse(400, "MANIFEST_BLOB_UNKNOWN", digests=missing)
        repository = self.ensure(name)
        ties = {entry["digest"]: repository.tie(entry["digest"]) for entry in named.entries}
        media_type = media_type or document.media_types[0]
        repository.manifests[digest] = Stored(digest, document, media_type, ties)
        repository.settle(digest, "child")
        repository.tags |= dict.fromkeys(tags, digest)
        want = _created(name, "manifests", digest)
        want.headers["OCI-Subject"] = named.subject
        want.headers["OCI-Tag"] = ", ".join(tags) if tells_tags and tags else None
        return want

    def get_manifest(self, name: str, reference: str) -> Want:
        repository = self.repositories.get(name)
        digest = repository.resolve(reference) if repository else None
        if repository is None or digest is None:
            return MANIFEST_UNKNOWN
        stored = repository.manifests[digest]
        raw = stored.document.raw
        return Want(
            200,
            {
                "Docker-Content-Digest": digest,
                "Content-Type": stored.media_type,
                "Content-Length": str(len(raw)),
                "ETag": f'"{digest}"',
            },
            raw,
        )

    def delete_tag(self, name: str, tag: str, match: str | None = None) -> Want:
        repository = self.repositories.get(name)
        if repository is None or tag not in repository.tags:
            return MANIFEST_UNKNOWN
        if _is_moved(repository.tags[tag], match, absent=False):
            return refuse(412, "DENIED")
        del repository.tags[tag]
        return Want(202, {}, b"")

    def delete_manifest(self, name: str, digest: str) -> Want:
        repository = self.repositories.get(name)
        if repository is None or digest not in repository.manifests:
            return MANIFEST_UNKNOWN
        parents = repository.parents_of(digest)
        holders = [p for p in parents if not repository.only_lists(p, digest)]
        if holders:
            allow: dict[str, str | None] = {"Allow": "GET, HEAD"}
            return refuse(405, "UNSUPPORTED", headers=allow, detail={"indexes": holders})
        for tag in repository.tags_of(digest):
            del repository.tags[tag]
        del repository.manifests[digest]
        for parent in parents:
            repository.manifests[parent].ties[digest] = repository.tie(digest)
        self._remove_if_empty(name)
        return Want(202, {}, b"")

    def copy(self, source: str, reference: str, target: str, tag: str) -> str | None:
        """Tag a manifest of one repository in another. Return its digest, or None if missing."""
        origin = self.repositories.get(source)
        digest = origin.resolve(reference) if origin else None
        if origin is None or digest is None:
            return None
        self.ensure(target)
        self._bring(origin, target, digest)
        self.repositories[target].tags[tag] = digest
        return digest

    def _bring(self, origin: Repository, target: str, digest: str) -> None:
        stored, destination = origin.manifests[digest], self.repositories[target]
        if destination is origin:
            return
        for entry, tie in stored.ties.items():
            if tie == "child":
                self._bring(origin, target, entry)
            elif tie == "blob":
                self._link(target, entry)
        for _, part in stored.named.parts:
            if part in origin.links:
                self._link(target, part)
        if digest not in destination.manifests:
            ties = {entry: destination.tie(entry) for entry in stored.ties}
            destination.manifests[digest] = replace(stored, ties=ties)
            destination.settle(digest, "child")

    def list_referrers(self, name: str, subject: str, artifact_type: str | None) -> Want:
        repository = self.repositories.get(name) or Repository(0)
        found = {
            stored.digest: stored.describe(stored.named.annotations)
            for stored in repository.manifests.values()
            if stored.named.subject == subject
        }
        entries = [
            found[digest]
            for digest in sorted(found)
            if artifact_type in {None, found[digest].get("artifactType")}
        ]
        media_type = "application/vnd.oci.image.index.v1+json"
        applied = "artifactType" if artifact_type else None
        headers = {"Content-Type": media_type, "OCI-Filters-Applied": applied, "Link": None}
        body = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        return Want(200, headers, json=body)


def _page(names: Iterable[str], n: int | None, last: str | None) -> tuple[list[str], bool]:
    """Return a page in byte order, and whether it must link to a next one."""
    after = sorted(name for name in names if name > (last or ""))
    page = after if n is None else after[:n]
    return page, bool(page) and len(page) < len(after)


def _is_moved(current: str | None, match: str | None, *, absent: bool) -> bool:
    if absent and current is not None:
        return True
    if match == "*":
        return current is None
    return match is not None and match != current
