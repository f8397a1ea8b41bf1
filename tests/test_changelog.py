"""Tests that changelog fragments are valid, and that a release collects them."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FRAGMENTS = {
    "plan": "Enhancement: Show bytes in a plan\n\nA plan now shows\nthe bytes.\n\nSee `docs`.\n",
    "key": "Security: Check the mode of key files\n",
}


def copy_to(folder: Path) -> Path:
    (folder / "changelog" / "unreleased").mkdir(parents=True)
    shutil.copy(ROOT / "changelog" / "release.py", folder / "changelog")
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    return folder / "changelog" / "unreleased"


def release(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(folder / "changelog" / "release.py"), "9.0.0"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_fragments_can_be_released(tmp_path: Path) -> None:
    unreleased = copy_to(tmp_path)
    for file in (ROOT / "changelog" / "unreleased").glob("*.md"):
        shutil.copy(file, unreleased)
    shutil.copy(ROOT / "changelog" / "TEMPLATE.md", unreleased)
    done = release(tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_release_has_all_fragments_above_earlier_versions(tmp_path: Path) -> None:
    unreleased = copy_to(tmp_path)
    for name, text in FRAGMENTS.items():
        (unreleased / f"{name}.md").write_text(text)
    before = (tmp_path / "CHANGELOG.md").read_text()
    assert release(tmp_path).returncode == 0
    after = (tmp_path / "CHANGELOG.md").read_text()
    intro, earlier = before.split("\n## ", 1)
    added = after.removeprefix(intro).removesuffix(f"\n## {earlier}")
    heading, *items = added.strip().split("\n\n", 1)
    assert heading.startswith("## 9.0.0 (")
    assert "".join(items) == (
        "- **Security: Check the mode of key files.**\n\n"
        "- **Enhancement: Show bytes in a plan.**\n\n  A plan now shows\n  the bytes.\n\n"
        "  See `docs`."
    )
    assert sorted(path.name for path in (tmp_path / "changelog" / "9.0.0").iterdir()) == [
        "key.md",
        "plan.md",
    ]
    assert release(tmp_path).returncode == 1  # no fragments are left


def test_a_fragment_without_a_kind_is_refused(tmp_path: Path) -> None:
    unreleased = copy_to(tmp_path)
    (unreleased / "plan.md").write_text("Show bytes in a plan\n")
    done = release(tmp_path)
    assert done.returncode == 1
    assert "plan.md: the first line must be like" in done.stderr
