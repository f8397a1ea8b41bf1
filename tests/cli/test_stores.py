"""Commands while the bucket cannot be reached."""

from pathlib import Path

import pytest

from registry import logs
from registry.cli.main import main

pytestmark = pytest.mark.timeout(120)


def test_only_commands_that_use_bytes_need_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    for name, value in (
        ("DRIVER", "s3"),
        ("ENDPOINT", "http://127.0.0.1:1"),
        ("REGION", "here"),
        ("BUCKET", "images"),
        ("ACCESS_KEY", "key"),
        ("SECRET_KEY", "secret"),
    ):
        monkeypatch.setenv(f"MOORAGE_STORAGE__{name}", value)
    where = ["--data", str(tmp_path / "data")]
    for command in (
        ("user", "add", "root", "--admin", "--no-password"),
        ("user", "list"),
        ("key", "rotate"),
        ("repo", "list"),
        ("usage",),
        ("gc", "status"),
    ):
        assert main([*command, *where]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["gc", "run", *where]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
