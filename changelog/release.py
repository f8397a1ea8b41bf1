"""Move the fragments of `changelog/unreleased` into a new section of CHANGELOG.md.

Usage: `python3 changelog/release.py VERSION`. `changelog/TEMPLATE.md` describes a fragment. The
fragments themselves move to `changelog/VERSION`.
"""

import re
import sys
import time
from pathlib import Path

KINDS = ("Security", "Change", "Bugfix", "Enhancement")

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"
UNRELEASED = ROOT / "changelog" / "unreleased"


def read(file: Path) -> tuple[int, str]:
    """Return the rank of a fragment and its text as an item of a list."""
    title, _, body = file.read_text().strip().partition("\n")
    kind, colon, sentence = title.partition(": ")
    if not colon or kind not in KINDS or sentence.endswith("."):
        raise SystemExit(f"{file.name}: the first line must be like: {KINDS[-1]}: Show a size")
    paragraphs = [f"**{kind}: {sentence}.**", *re.split(r"\n\s*\n", body.strip())]
    text = "\n\n".join(each for each in paragraphs if each)
    return KINDS.index(kind), "- " + text.replace("\n", "\n  ").replace("\n  \n", "\n\n")


def release(version: str) -> None:
    files = sorted(UNRELEASED.glob("*.md"))
    if not files:
        raise SystemExit(f"{UNRELEASED} has no fragments")
    items = [text for _, text in sorted(map(read, files))]
    intro, heading, earlier = CHANGELOG.read_text().partition("\n## ")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    section = "\n\n".join([f"\n## {version} ({day})", *items])
    CHANGELOG.write_text(f"{intro}{section}\n{heading}{earlier}")
    released = UNRELEASED.with_name(version)
    released.mkdir()
    for file in files:
        file.rename(released / file.name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    release(sys.argv[1])
