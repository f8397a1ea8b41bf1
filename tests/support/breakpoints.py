"""Breakpoints at which a test blocks a server, to kill it there."""

import asyncio
from pathlib import Path

_SCRIPT = """\
import asyncio
import os

from registry.services.content.publication import Publication
from registry.services.content.upload_keys import UploadKeys
from registry.services.content.upload_leases import UploadLeases
from storage.s3.bucket import S3Bucket
from storage.s3.upload import S3Upload


async def stop(point):
    try:
        os.rename(f"{folder}/{{point}}", f"{folder}/{{point}}.reached")
    except FileNotFoundError:
        return
    await asyncio.Event().wait()


def stopping(owner, name):
    real = getattr(owner, name)

    async def call(*args, **kwargs):
        await stop(f"before {{name}}")
        result = await real(*args, **kwargs)
        await stop(f"after {{name}}")
        return result

    setattr(owner, name, call)


stopping(UploadLeases, "_claim")
stopping(S3Bucket, "begin")
stopping(S3Upload, "_put_tail")
stopping(S3Upload, "_complete")
stopping(UploadKeys, "save_progress")
stopping(Publication, "link")
"""

DURING_PATCH = [
    "after _claim",
    "after begin",
    "after _put_tail",
    "before save_progress",
    "after save_progress",
]
DURING_PUT = ["before _complete", "after _complete", "before link", "after link"]


class Breakpoints:
    """Breakpoints for the servers that load `patches`.

    A breakpoint that is set blocks the first request that reaches it forever.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.patches = folder
        (folder / "sitecustomize.py").write_text(_SCRIPT.format(folder=folder))

    def set(self, point: str) -> None:
        assert point in {*DURING_PATCH, *DURING_PUT}
        (self.patches / point).touch()

    async def reached(self, point: str) -> None:
        """Wait until a request is blocked at the breakpoint."""
        path = self.patches / f"{point}.reached"
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.01)
        path.unlink()
