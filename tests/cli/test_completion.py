"""Completion scripts, used by real shells where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from registry.cli.main import main
from tests.support.missing import missing

TRY = """\
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
set -- $(complete -p moorage)
while [ "$1" != -F ]; do shift; done
"$2"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def make_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> "MakeScript":
    return MakeScript(tmp_path, capsys)


class MakeScript:
    """Writer of completion scripts."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def __call__(self, shell: str) -> Path:
        if shutil.which(shell) is None:
            missing(shell)
        assert main(["completion", shell]) == 0
        path = self._folder / f"script.{shell}"
        path.write_text(self._capsys.readouterr().out)
        return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["us"], ["usage", "user"]),
        (["user", "a"], ["add"]),
        (["audit", "list", "--li"], ["--limit"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["retention", "set", "team", "--by", "p"], ["pull", "push"]),
        (["backup", "create", "FOLDER/back"], ["FOLDER/backups"]),
        (["serve", "--config", "FOLDER/set"], ["FOLDER/settings.toml"]),
    ],
    ids=str,
)
def test_bash_completes(
    make_script: MakeScript, words: list[str], completed: list[str], tmp_path: Path
) -> None:
    script = make_script("bash")
    (tmp_path / "backups").mkdir()
    (tmp_path / "settings.toml").touch()
    typed = [word.replace("FOLDER", str(tmp_path)) for word in words]
    done = subprocess.run(
        ["bash", "-c", TRY, "bash", script, "moorage", *typed],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {word.rstrip("/ ") for word in done.stdout.split("\n") if word.strip()}
    assert sorted(found) == [word.replace("FOLDER", str(tmp_path)) for word in completed]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_accepts_its_script(make_script: MakeScript, shell: str) -> None:
    subprocess.run([shell, "-n", make_script(shell)], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also without the shell, the script must have what the help of the commands has."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("retention", "restore", "keep-per-minor", "limit-rate"):
        assert word in script
