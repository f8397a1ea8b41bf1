"""A process that fetches a blob into a repository, until a test kills it.

Arguments: the data directory, the settings as JSON, the URL of the upstream, the digest.
"""

import asyncio
import json
import sys
from pathlib import Path

from registry.app import open_runtime
from registry.client.upstream import Upstream
from registry.config import load
from registry.services.mirrors import fill_leases
from storage.digest import Digest
from tests.services.mirrors.pulling import NAME


async def main(data: str, overrides: str, url: str, digest: str) -> None:
    fill_leases.LEASE_S, fill_leases.HEARTBEAT_S = 2.0, 0.5
    settings = load(config=None, data=Path(data), overrides=json.loads(overrides), environ={})
    blob = Digest.parse(digest)
    upstream = Upstream(url, allow_private=True)
    async with open_runtime(settings) as opened:
        reader = await opened.registry.fills.open(
            NAME,
            blob,
            lambda start, size: upstream.open_blob(NAME, blob, start=start, size=size),
        )
        assert reader is not None
        async for _ in reader.read(0, reader.size):
            print("read", flush=True)  # noqa: T201 - the test waits for it


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
