"""File system types, and whether SQLite can rely on them."""

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs"),
}

_LOCAL_FUSE = {"fuseblk", "fusectl"}
"""Types that begin with "fuse" and are accepted.

`fuseblk` is a local disk, such as NTFS, and `fusectl` is no disk.
"""


def find_remote_type(path: Path) -> str:
    """Return the type of a network or FUSE file system that has `path`, else "".

    Their locks and shared memory do not give the guarantees that SQLite's write-ahead log needs.
    """
    try:
        mounts = _MOUNTS.read_text()
    except OSError:  # not Linux, or no /proc
        return ""
    kind = find_type(path.resolve(), mounts)
    is_fuse = kind.startswith("fuse") and kind not in _LOCAL_FUSE
    return kind if is_fuse or kind in _NETWORK else ""


def find_type(path: Path, mounts: str) -> str:
    """Return the type of the file system that has the absolute `path`.

    `mounts` is the content of /proc/self/mountinfo, described in proc(5).
    """
    best, kind = Path(), ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        place = Path(_unescape(before.split(" ")[4]))
        # Of several mounts at one path, the last one hides the others.
        if path.is_relative_to(place) and (not kind or place.is_relative_to(best)):
            best, kind = place, after.split(" ")[0]
    return kind


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
