"""Rules about manifests, tags, lists and referrers."""

from http import HTTPStatus

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from tests.scenarios.model.content import (
    BYTES_OF,
    DOCUMENT_OF,
    DOCUMENTS,
    FALLBACK_TAGS,
    NAMED,
    SIGNATURE,
    SUBJECTS,
    TAGS,
    Document,
    digest_of,
)
from tests.scenarios.model.content_rules import BlobRules, algorithms, any_content, methods
from tests.scenarios.model.expected import Want
from tests.scenarios.model.machine import chances, names, picks, risky, step, tags
from tests.scenarios.model.model import Model

documents = st.sampled_from(DOCUMENTS)
manifest_digests = st.sampled_from(sorted(DOCUMENT_OF))
references = tags | manifest_digests
several_tags = st.lists(tags, min_size=0, max_size=3, unique=True)
sizes = st.none() | st.sampled_from((0, 1, 2, 100))
bounds = st.none() | st.sampled_from(("", "L", "a", "a-b", "a/b", "b", "zz", *TAGS))


class ManifestRules(BlobRules):
    """Manifests and tags: pushed in every way, read, deleted."""

    @initialize(pushes=st.lists(st.tuples(names, documents, tags), max_size=5))
    def begin_with(self, pushes: list[tuple[str, Document, str]]) -> None:
        for name, document, tag in pushes:
            self._push_parts(name, document, blobs=False)
            self.put(name, document, "sha256", tag, 0)

    def put(
        self, name: str, document: Document, algorithm: str, at: str | list[str], header: int
    ) -> bool:
        """Push to a tag, or to a digest with tags in the query. Return whether it was accepted.

        `header` selects the media type that is sent, among those the document may have. -1 sends
        none.
        """
        digest = digest_of(document.raw, "sha256" if isinstance(at, str) else algorithm)
        media_type = document.media_types[header % len(document.media_types)]
        media_type = document.media_types[0] if header < 0 else media_type
        tags_set = [at] if isinstance(at, str) else at
        answer = self.ask(
            lambda model: model.put_manifest(
                name,
                document,
                digest,
                tags=tags_set,
                media_type=media_type,
                tells_tags=not isinstance(at, str),
            ),
            "PUT",
            f"/v2/{name}/manifests/{at if isinstance(at, str) else digest}",
            params=None if isinstance(at, str) else [("tag", tag) for tag in at],
            content=document.raw,
            headers={} if header < 0 else {"Content-Type": f"{media_type}; charset=utf-8"},
        )
        return answer.status_code == HTTPStatus.CREATED

    @risky(name=names, document=documents, at=tags | manifest_digests)
    def put_as_it_is(self, name: str, document: Document, at: str) -> None:
        """Push without the referenced content, and to a digest that is rarely the right one."""
        if ":" not in at:
            self.put(name, document, "sha256", at, 0)
            return
        self.ask(
            lambda model: model.put_manifest(name, document, at, tags=["v1"], tells_tags=True),
            "PUT",
            f"/v2/{name}/manifests/{at}",
            params={"tag": "v1"},
            content=document.raw,
        )

    @risky(
        name=names,
        document=documents,
        algorithm=algorithms,
        at=tags | several_tags,
        header=st.integers(-1, 1),
        blobs=st.booleans(),
    )
    def push(  # noqa: PLR0917 - rules are called by keyword
        self,
        name: str,
        document: Document,
        algorithm: str,
        at: str | list[str],
        header: int,
        blobs: bool,
    ) -> None:
        """Push all referenced content first, as clients do. With `blobs`, push entries as blobs."""
        self._push_parts(name, document, blobs=blobs)
        assert self.put(name, document, algorithm, at, header)

    def _push_parts(self, name: str, document: Document, *, blobs: bool) -> None:
        for digest in sorted(NAMED[document.label].required):
            repository = self.model.repositories.get(name)
            if repository and digest in repository.links - self.model.lost:
                continue
            if digest in BYTES_OF and (blobs or digest not in DOCUMENT_OF):
                self.push_bytes(name, BYTES_OF[digest], digest)
            elif not (repository and digest in repository.manifests):
                self._push_parts(name, DOCUMENT_OF[digest], blobs=blobs)
                assert self.put(name, DOCUMENT_OF[digest], digest.partition(":")[0], [], 0)

    @risky(
        name=names,
        document=documents,
        tag=tags,
        match=st.none() | st.just("*") | manifest_digests,
        current=st.booleans(),
        absent=st.booleans(),
    )
    def put_if(  # noqa: PLR0917 - as above
        self,
        name: str,
        document: Document,
        tag: str,
        match: str | None,
        current: bool,
        absent: bool,
    ) -> None:
        """Compare and swap."""
        match = self._current(name, tag) or match if current else match
        headers = {"If-Match": match if match == "*" else f'"no", "{match}"'} if match else {}
        if absent:
            headers["If-None-Match"] = "*"
        self.ask(
            lambda model: model.put_manifest(
                name,
                document,
                digest_of(document.raw),
                tags=[tag],
                match=match,
                absent=absent,
            ),
            "PUT",
            f"/v2/{name}/manifests/{tag}",
            content=document.raw,
            headers=headers,
        )

    def _current(self, name: str, reference: str) -> str | None:
        repository = self.model.repositories.get(name)
        return repository.resolve(reference) if repository else None

    @any_content
    @step(name=names, reference=references, pick=chances, method=methods, known=st.booleans())
    def read_manifest(self, name: str, reference: str, pick: int, method: str, known: bool) -> None:
        """Read a manifest. With `known`, the client sends the digest it already has."""
        name, reference = self.pick_manifest(pick, name, reference)
        etag = self._current(name, reference)
        if not known or etag is None:
            self.see_manifest(name, reference, method=method)
            return
        self.ask(
            lambda _: Want(304, {"ETag": f'"{etag}"', "Docker-Content-Digest": etag}, b""),
            method,
            f"/v2/{name}/manifests/{reference}",
            headers={"If-None-Match": f'"{etag}"'},
        )

    @any_content
    @risky(name=names, reference=references, pick=chances)
    def delete_manifest(self, name: str, reference: str, pick: int) -> None:
        name, reference = self.pick_manifest(pick, name, reference)

        def foresee(model: Model) -> Want:
            delete = model.delete_manifest if ":" in reference else model.delete_tag
            return delete(name, reference)

        self.ask(foresee, "DELETE", f"/v2/{name}/manifests/{reference}")

    @any_content
    @risky(name=names, tag=tags, pick=picks, match=st.just("*") | manifest_digests)
    def delete_tag_if(self, name: str, tag: str, pick: int, match: str) -> None:
        if pick % 2:
            match = self._current(name, tag) or match
        headers = {"If-Match": match if match == "*" else f'"{match}"'}
        path = f"/v2/{name}/manifests/{tag}"
        self.ask(lambda model: model.delete_tag(name, tag, match), "DELETE", path, headers=headers)

    @risky(name=names, tag=st.sampled_from(FALLBACK_TAGS), blobs=st.booleans())
    def push_fallback(self, name: str, tag: str, blobs: bool) -> None:
        """Update a fallback tag, as a client without the referrers API does."""
        index = next(d for d in DOCUMENTS if d.label.startswith("fallback"))
        self._push_parts(name, index, blobs=blobs)
        assert self.put(name, index, "sha256", tag, 0)


class ListRules(ManifestRules):
    """Lists of tags, repositories and referrers."""

    @step(name=st.just("") | names, n=sizes, last=bounds)
    def list_names(self, name: str, n: int | None, last: str | None) -> None:
        if name:
            self.see_tags(name, n, last)
        else:
            self.see_catalog(n, last)

    @step(
        name=names,
        subject=st.sampled_from(SUBJECTS),
        artifact_type=st.none() | st.sampled_from((SIGNATURE, "application/vnd.oci.empty.v1+json")),
    )
    def list_referrers(self, name: str, subject: str, artifact_type: str | None) -> None:
        self.see_referrers(name, subject, artifact_type)
