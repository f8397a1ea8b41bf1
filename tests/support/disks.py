"""Small file systems for tests."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.missing import require_root_and


@contextlib.contextmanager
def small_disk(folder: Path, size: str, kind: str) -> Iterator[Path]:
    """Mount a file system of `size`, which is tmpfs or ext4 in a file."""
    require_root_and("mount", "mkfs.ext4")
    disk = folder / "small"
    disk.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "moorage-test", str(disk)]
    else:
        image = folder / "small.img"
        subprocess.run(["truncate", "-s", size, image], check=True)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        command = ["mount", "-o", "loop", str(image), str(disk)]
    subprocess.run(command, check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> Path:
    """Fill the file system with one file, and return the path of that file."""
    path = disk / "fill"
    for size in (1 << 16, 1 << 12, 1):
        # Closing the file can fail too, because of bytes that could not be written.
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
            while file.write(b"x" * size):
                pass
    return path
