"""A data directory that other accounts can access is served, with a warning."""

from pathlib import Path

import pytest

from registry.data_dir import DataDirectory
from tests.support.servers.server import Server, serving


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o700, None),
        (0o770, None),  # the mode in Kubernetes with fsGroup
        (0o755, "can be read by all accounts"),
        (0o701, "can be read by all accounts"),
        (0o777, "can be written to by all accounts"),
    ],
)
def test_exposure_is_told_with_its_remedy(tmp_path: Path, mode: int, said: str | None) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    folder.chmod(mode)
    found = DataDirectory(folder).find_exposure()
    if said is None:
        assert found is None
    else:
        assert said in (found or "")
        assert f"chmod o-rwx '{folder}'" in (found or "")


def test_serve_warns_of_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    server = Server(data)
    with serving(server):
        pass
    assert f"chmod o-rwx {data}" in server.log.read_text()
