"""Clients that push images continuously and record the acknowledged pushes."""

import asyncio
import hashlib
import random
from dataclasses import dataclass, field

import httpx

from storage.digest import Digest
from tests.support.kit import Kit, image_manifest


@dataclass(frozen=True)
class Acknowledged:
    """A push that the server answered with 201. The seed reproduces its blobs."""

    name: str
    tag: str
    manifest: bytes
    blobs: tuple[Digest, ...]


@dataclass
class Ledger:
    """List of the acknowledged pushes, in order."""

    pushes: list[Acknowledged] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def blob_bytes(seed: str, size: int) -> bytes:
    """Return incompressible bytes that depend only on the seed and the size."""
    return hashlib.shake_256(seed.encode()).digest(size)


async def push_in_chunks(kit: Kit, name: str, data: bytes) -> Digest:
    """Push a blob with POST, PATCH and PUT, as Docker does."""
    digest = Digest.of(data)
    location = await kit.start_upload(name)
    answer = await kit.http.patch(location, content=data)
    assert answer.status_code == 202, answer.text
    answer = await kit.http.put(location, params={"digest": str(digest)})
    assert answer.status_code == 201, answer.text
    return digest


async def push_image(kit: Kit, ledger: Ledger, name: str, tag: str, size: int) -> None:
    """Push a new image, and add it to the ledger when its tag is acknowledged."""
    config = blob_bytes(f"{name}:{tag}:config", 300)
    layers = [blob_bytes(f"{name}:{tag}:{i}", size) for i in range(2)]
    digests = [
        await push_in_chunks(kit, name, config),
        await push_in_chunks(kit, name, layers[0]),
        await kit.push_blob(name, layers[1]),
    ]
    raw = image_manifest(config, layers)
    answer = await kit.put_manifest(name, tag, raw)
    assert answer.status_code == 201, answer.text
    ledger.pushes.append(Acknowledged(name, tag, raw, tuple(digests)))


async def push_until(
    url: str, ledger: Ledger, stop: asyncio.Event, *, clients: int, size: int, run: str
) -> None:
    """Push with `clients` clients until `stop` is set or the server is gone."""

    async def client(number: int) -> None:
        chance = random.Random(f"{run}{number}")
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            kit = Kit(http)
            count = 0
            while not stop.is_set():
                count += 1
                try:
                    await push_image(
                        kit, ledger, f"team/{number}", f"{run}-{count}", chance.randint(1, size)
                    )
                except httpx.TransportError:
                    return  # the server was killed: the ledger has only acknowledged pushes

    await asyncio.gather(*(client(number) for number in range(clients)))


async def verify(url: str, pushes: list[Acknowledged]) -> list[str]:
    """Pull the complete content of all acknowledged pushes, and return the problems."""
    wrong: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for push in pushes:
            answer = await http.get(f"/v2/{push.name}/manifests/{push.tag}")
            if (answer.status_code, answer.content) != (200, push.manifest):
                wrong.append(f"{push.name}:{push.tag} answers {answer.status_code}")
            for digest in push.blobs:
                try:
                    answer = await http.get(f"/v2/{push.name}/blobs/{digest}")
                except httpx.TransportError as error:
                    wrong.append(f"{push.name}@{digest} {error}")
                    continue
                if answer.status_code != 200 or Digest.of(answer.content) != digest:
                    wrong.append(f"{push.name}@{digest} answers {answer.status_code}")
    return wrong
