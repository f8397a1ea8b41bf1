"""Clients that push, mount, read, tag and delete during collection, and check what must exist."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.support.kit import Kit, codes, descriptor, image_manifest, index_manifest
from tests.support.pushing import blob_bytes

POOL = 12
"""Number of distinct layers. All clients push the same ones, each to its own repository."""

TAGS = 4
"""Number of tags that a client moves."""


@dataclass(frozen=True)
class Pushed:
    """A manifest whose push was acknowledged, and the content it needs."""

    raw: bytes
    blobs: tuple[Digest, ...] = ()
    children: tuple["Pushed", ...] = ()
    subject: Digest | None = None

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    def walk(self) -> Iterator["Pushed"]:
        """Iterate over this manifest and all its descendants."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass
class Books:
    """Acknowledged pushes of one client, by tag and by digest, and the violations it found."""

    tags: dict[str, Pushed] = field(default_factory=dict)
    referrers: list[Pushed] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    pushed: int = 0
    late: int = 0

    def list_kept(self) -> dict[Digest, Pushed]:
        """Return every manifest that a tag retains, directly or through an index or a subject."""
        kept = {m.digest: m for tagged in self.tags.values() for m in tagged.walk()}
        for referrer in self.referrers:
            if referrer.subject in kept:
                kept[referrer.digest] = referrer
        return kept


class LateError(Exception):
    """The client was slower than its guaranteed time, so content it relied on may be deleted."""


class Client:
    """A client with its own repository. It can only mount content of other repositories."""

    def __init__(self, kit: Kit, number: int, promise: float) -> None:
        self._kit = kit
        self._number = number
        self._name = f"stress/{number}"
        self._promise = promise
        self._chance = random.Random(number)
        self._count = 0
        self.books = Books()

    async def run_until(self, stop: asyncio.Event) -> None:
        acts = [self.push] * 4 + [self.look] * 2
        acts += [self.push_index, self.push_referrer, self.retag, self.delete_tag, self.delete]
        while not stop.is_set():
            self._count += 1
            try:
                await self._chance.choice(acts)()
            except LateError:
                self.books.late += 1

    # --- operations of a client ---

    async def push(self) -> None:
        """Push an image as Docker does: HEAD, then mount or upload, then the manifest."""
        begun = time.monotonic()
        await self._set_tag(self._random_tag(), await self._prepare_image(), begun)

    async def push_index(self) -> None:
        """Push two images by digest, and the index that names them."""
        begun = time.monotonic()
        children = []
        for _ in range(2):
            child = await self._prepare_image()
            await self._put(str(child.digest), child, begun)
            children.append(child)
        raw = index_manifest([child.raw for child in children])
        await self._set_tag(self._random_tag(), Pushed(raw, children=tuple(children)), begun)

    async def push_referrer(self) -> None:
        """Push a referrer of a tagged image."""
        if not self.books.tags:
            return
        begun = time.monotonic()
        subject = self._chance.choice(list(self.books.tags.values()))
        about = descriptor(subject.raw, OCI_MANIFEST)
        made = await self._prepare_image(subject=about)
        referrer = Pushed(made.raw, made.blobs, subject=subject.digest)
        await self._put(str(referrer.digest), referrer, begun)
        self.books.referrers.append(referrer)

    async def retag(self) -> None:
        """Set another tag to a tagged image."""
        if self.books.tags:
            image = self._chance.choice(list(self.books.tags.values()))
            await self._set_tag(self._random_tag(), image, None)

    async def delete_tag(self) -> None:
        if self.books.tags:
            tag = self._chance.choice(list(self.books.tags))
            del self.books.tags[tag]
            await self._expect(202, "DELETE", f"manifests/{tag}")

    async def delete(self) -> None:
        """Delete an image, unless an index may name it."""
        if not self.books.tags:
            return
        image = self._chance.choice(list(self.books.tags.values()))
        above = [m for tagged in self.books.tags.values() for m in tagged.walk() if m.children]
        if any(image.digest == child.digest for index in above for child in index.children):
            return
        self.books.tags = {t: m for t, m in self.books.tags.items() if m.digest != image.digest}
        await self._expect(202, "DELETE", f"manifests/{image.digest}")

    async def look(self) -> None:
        """Check that the content of a tag is complete."""
        if self.books.tags:
            tag = self._chance.choice(list(self.books.tags))
            answer = await self._expect(200, "GET", f"manifests/{tag}")
            if answer.content != self.books.tags[tag].raw:
                self.books.wrong.append(f"{self._name}:{tag} is another manifest")
            await self.verify(self.books.tags[tag])

    async def verify(self, image: Pushed) -> None:
        """Pull the image with all its content."""
        for manifest in image.walk():
            answer = await self._expect(200, "GET", f"manifests/{manifest.digest}")
            if answer.content != manifest.raw:
                self.books.wrong.append(f"{self._name}@{manifest.digest} is another manifest")
            for digest in manifest.blobs:
                answer = await self._expect(200, "GET", f"blobs/{digest}")
                if Digest.of(answer.content) != digest:
                    self.books.wrong.append(f"{self._name}: blob {digest} is something else")

    # --- how it does it ---

    def _random_tag(self) -> str:
        return f"t{self._chance.randrange(TAGS)}"

    async def _set_tag(self, tag: str, image: Pushed, begun: float | None) -> None:
        await self._put(tag, image, begun)
        self.books.tags[tag] = image
        self.books.pushed += 1

    async def _prepare_image(self, **more: object) -> Pushed:
        """Push the blobs of an image, and return its manifest, which is not pushed."""
        config = f'{{"client": {self._number}, "n": {self._chance.randrange(POOL)}}}'.encode()
        seeds = [self._chance.randrange(POOL) for _ in range(2)]
        layers = [blob_bytes(f"layer {seed}", 2_000 + 500 * seed) for seed in seeds]
        for data in (config, *layers):
            await self._bring(data)
        unique = f"{self._number}.{self._count}"
        raw = image_manifest(config, layers, annotations={"of": unique}, **more)
        return Pushed(raw, tuple({Digest.of(data) for data in (config, *layers)}))

    async def _bring(self, data: bytes) -> None:
        digest = Digest.of(data)
        answer = await self._ask("HEAD", f"blobs/{digest}")
        if answer.status_code == 200:
            return
        self._check(answer, 404, begun=None)
        params = {"digest": str(digest)}
        if self._chance.random() < 0.5:
            other = f"stress/{self._chance.randrange(8)}"
            mount = {"mount": str(digest), "from": other}
            answer = await self._ask("POST", "blobs/uploads/", params=mount)
            if answer.status_code == 201:
                return
            self._check(answer, 202, begun=None)
            answer = await self._kit.http.put(
                answer.headers["Location"], params=params, content=data
            )
        else:
            answer = await self._ask("POST", "blobs/uploads/", params=params, content=data)
        self._check(answer, 201, begun=None)

    async def _put(self, reference: str, image: Pushed, begun: float | None) -> None:
        answer = await self._kit.put_manifest(self._name, reference, image.raw)
        self._check(answer, 201, begun)

    async def _ask(self, method: str, path: str, **more: object) -> httpx.Response:
        return await self._kit.http.request(method, f"/v2/{self._name}/{path}", **more)  # type: ignore[arg-type]

    async def _expect(self, status: int, method: str, path: str) -> httpx.Response:
        answer = await self._ask(method, path)
        self._check(answer, status, begun=None)
        return answer

    def _check(self, answer: httpx.Response, status: int, begun: float | None) -> None:
        """Record an unexpected answer. Raise LateError if the client itself was too slow."""
        if answer.status_code == status:
            return
        took = 0.0 if begun is None else time.monotonic() - begun
        # On a busy machine, more than one of the blobs may have expired: one error for each.
        if took > self._promise and set(codes(answer)) == {"MANIFEST_BLOB_UNKNOWN"}:
            raise LateError
        asked = f"{answer.request.method} {answer.request.url}, {took:.2f} s after its first look"
        self.books.wrong.append(f"{asked}: {answer.status_code} {answer.text[:200]}")
        raise LateError
