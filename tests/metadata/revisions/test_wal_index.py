"""The mapped header of the WAL index."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.metadata.revisions import wal_index
from registry.metadata.revisions.wal_index import HEADER, is_next, map_header, read_header


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield an open connection to a database in WAL mode that has been read."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA data_version").fetchone()
    yield connection
    connection.close()


def run_elsewhere(path: Path, *statements: str) -> str:
    """Execute the statements in another process, and return the last result or the error."""
    code = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)\n"
        "try:\n"
        "    for s in sys.argv[2:]: r = c.execute(s).fetchone()\n"
        "    print(r[0] if r else '')\n"
        "except sqlite3.Error as e: print(e)\n"
    )
    command = [sys.executable, "-c", code, str(path), *statements]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def header_of(path: Path) -> bytes:
    mapped = map_header(path)
    assert mapped is not None
    header = read_header(mapped)
    assert header is not None
    return header


@pytest.mark.usefixtures("reader")
def test_a_commit_of_another_process_changes_it(path: Path) -> None:
    before = header_of(path)
    run_elsewhere(path, "SELECT * FROM t")
    run_elsewhere(path, "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "ROLLBACK")
    assert header_of(path) == before
    run_elsewhere(path, "INSERT INTO t VALUES (1)")
    assert header_of(path) != before


@pytest.mark.usefixtures("reader")
def test_a_commit_of_another_connection_of_this_process_changes_it(path: Path) -> None:
    before = header_of(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("INSERT INTO t VALUES (1)")
    other.close()
    assert header_of(path) != before


@pytest.mark.usefixtures("reader")
def test_commits_after_a_reset_of_the_log_change_it(path: Path) -> None:
    """The log begins again at its first frame, with as many frames as before."""
    seen = set()
    for number in range(5):
        run_elsewhere(path, "PRAGMA wal_checkpoint(TRUNCATE)", f"UPDATE t SET x = {number}")
        run_elsewhere(path, "DELETE FROM t", "INSERT INTO t VALUES (1)")
        seen.add(header_of(path))
    assert len(seen) == 5


@pytest.mark.usefixtures("reader")
def test_mapping_releases_no_lock_of_sqlite(path: Path) -> None:
    """Another process could otherwise change the journal mode, and delete the log."""
    for _ in range(3):
        header_of(path)
    assert run_elsewhere(path, "PRAGMA journal_mode=delete") == "database is locked"
    assert Path(f"{path}-shm").exists()


@pytest.mark.usefixtures("reader")
def test_closing_a_descriptor_of_the_file_releases_the_locks(path: Path) -> None:
    """The negative control of the test above: the reason why the descriptors stay open."""
    os.close(os.open(path, os.O_RDONLY))
    os.close(os.open(f"{path}-shm", os.O_RDONLY))
    assert run_elsewhere(path, "PRAGMA journal_mode=delete") == "delete"


def test_the_file_of_a_deleted_index_is_closed(path: Path, reader: sqlite3.Connection) -> None:
    header_of(path)
    status = Path(f"{path}-shm").stat()
    identity = status.st_dev, status.st_ino
    assert map_header(path) is wal_index._files[identity].content
    descriptor = wal_index._files[identity].descriptor
    reader.close()
    assert map_header(path) is None
    assert identity not in wal_index._files
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_link_to_the_database(path: Path, reader: sqlite3.Connection) -> None:
    reader.execute("INSERT INTO t VALUES (1)")
    link = path.parent / "link.db"
    link.symlink_to(path)
    assert map_header(link) is map_header(path)


def test_a_database_without_a_log(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    assert map_header(path) is None
    connection.close()


def test_a_file_that_is_too_short(path: Path) -> None:
    index = Path(f"{path}-shm")
    index.write_bytes(b"")
    assert map_header(path) is None
    assert map_header(path) is None
    index.unlink()


def test_a_header_that_is_being_written(path: Path, reader: sqlite3.Connection) -> None:
    """A commit writes the second copy first."""
    reader.execute("INSERT INTO t VALUES (1)")
    mapped = map_header(path)
    assert mapped is not None
    with Path(f"{path}-shm").open("r+b") as file:  # the locks are not needed any more
        whole = file.read(HEADER)
        file.seek(HEADER // 2)
        file.write(bytes(8))
        file.flush()
        assert read_header(mapped) is None
        file.seek(0)
        file.write(whole)
        file.flush()
        assert read_header(mapped) == whole


def test_a_header_follows_another_by_its_counter() -> None:
    def header(count: int) -> bytes:
        return bytes(8) + count.to_bytes(4, sys.byteorder) + bytes(HEADER - 12)

    assert is_next(header(1), header(2))
    assert is_next(header((1 << 32) - 1), header(0))
    assert not is_next(header(1), header(3))
    assert not is_next(header(1), header(1))
