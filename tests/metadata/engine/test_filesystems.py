"""Tests of the warning about a SQLite file on an unreliable file system."""

import logging
import subprocess
from pathlib import Path

import pytest

from registry.cli.kit import database
from registry.config import load
from registry.data_dir import DataDirectory
from registry.metadata.engine.filesystems import find_remote_type, find_type
from tests.support.disks import small_disk
from tests.support.missing import require_root_and

MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:40 / /srv rw shared:2 master:1 - nfs4 nas:/export rw,vers=4.2
31 30 254:2 / /srv/local\\040disk rw - xfs /dev/vdb rw
32 22 0:41 / /home/ann rw - fuse.sshfs ann@host: rw
33 22 0:42 / /mnt rw - ext4 /dev/vdc rw
34 33 0:43 / /mnt rw - cifs //nas/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/moorage/moorage.db", "ext4"),
        ("/srv/moorage/moorage.db", "nfs4"),
        ("/srvother/moorage.db", "ext4"),
        ("/srv/local disk/moorage.db", "xfs"),
        ("/home/ann/data", "fuse.sshfs"),
        ("/mnt/data", "cifs"),
    ],
)
def test_the_mount_that_holds_a_file_is_found(path: str, kind: str) -> None:
    assert find_type(Path(path), MOUNTS) == kind


def start(data: Path) -> None:
    """Prepare the database as `serve` does before it serves."""
    folder = DataDirectory(data)
    folder.create()
    database.make_usable(load(config=None, data=data, overrides={}, environ={}), folder)
    folder.close()


def test_a_database_on_fuse_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    require_root_and("bindfs")
    there, mounted = tmp_path / "there", tmp_path / "mounted"
    there.mkdir()
    mounted.mkdir()
    subprocess.run(["bindfs", there, mounted], check=True)
    try:
        with caplog.at_level(logging.WARNING):
            start(mounted / "data")
    finally:
        subprocess.run(["umount", mounted], check=True)
    [warning] = [record.message for record in caplog.records if "SQLite" in record.message]
    assert "fuse" in warning
    assert "local disk" in warning
    assert "PostgreSQL" in warning


def test_a_database_on_a_local_disk_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path, "64M", "tmpfs") as disk, caplog.at_level(logging.WARNING):
        assert find_remote_type(disk / "data" / "moorage.db") == ""
        start(disk / "data")
    assert caplog.records == []
