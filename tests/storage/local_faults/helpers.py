"""Helpers of the tests of this folder."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.digest import Digest, Hasher
from storage.local.upload import LocalUpload


@contextlib.contextmanager
def failing(
    name: str, number: int, when: Callable[[str], bool] = lambda _: True
) -> Iterator[list[str]]:
    """Let `os.<name>` fail with `number` on matching paths. Yield the paths it failed on."""
    failed: list[str] = []
    real = getattr(os, name)

    def call(what: int | str | Path, *args: object) -> object:
        path = str(Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else what)
        if when(path):
            failed.append(path)
            raise OSError(number, "made up", path)
        return real(what, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, call)
        yield failed


async def hash_of(upload: LocalUpload) -> Digest:
    hasher = Hasher("sha256")
    await upload.hash(hasher)
    return hasher.digest()
