"""The list of slow tests is up to date."""

from pathlib import Path

from tests.support import slow


def exists(name: str) -> bool:
    path, _, function = name.partition("::")
    file = slow.ROOT / path
    function = function.rpartition("::")[2]
    return file.is_file() and f"def {function}(" in file.read_text()


def test_most_of_them_exist() -> None:
    """A name that is gone does no harm, and its test runs in `make check` from then on."""
    names = slow.read_list()
    gone = [name for name in names if not exists(name)]
    assert len(gone) < len(names) / 10, f"measure again: {gone}"


def test_a_report_is_read(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    cases = [
        ("tests.auth.test_keys.TestKeys", "test_slow[postgres]", 9.0),
        ("tests.auth.test_keys.TestKeys", "test_slow[a.b]", 0.9),
        ("tests.auth.test_keys.TestKeys", "test_slow[sqlite]", 0.3),
        ("tests.auth.test_keys", "test_quick[sqlite]", 0.1),
        ("tests.auth.test_keys", "test_quick[postgres]", 9.0),
        ("tests.server.test_serve", "test_of_a_server", 9.0),
    ]
    written = "".join(
        f'<testcase classname="{where}" name="{name}" time="{seconds}"/>'
        for where, name, seconds in cases
    )
    report.write_text(f"<testsuites><testsuite>{written}</testsuite></testsuites>")
    assert slow.list_slow(report) == ["tests/auth/test_keys.py::TestKeys::test_slow"]
