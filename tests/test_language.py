"""Tests that documentation, docstrings and comments are in plain English.

CONTRIBUTING.md has the rules. `WORST` lists the patterns that a machine can find, each with an
example and a better sentence.
"""

import ast
import builtins
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

VERB = r"\b(is|are|was|were|has|have|gets|goes|may|must|can|stays)\b"

WORST = [
    (
        rf"^(What|Who|Whoever) [^?]*{VERB}[^?]*[.;]$",
        "What was written twice is called once.",
        "Callers of a repeated write are called once.",
    ),
    (
        rf"^Whatever [^?,]*{VERB}[^?,]*[.;]$",
        "Whatever is expired is deleted.",
        "Whatever the rules say, the newest tag is kept.",
    ),
    (
        r"\b([Ss]he|[Hh]ers?|[Hh]e|[Hh]is|[Hh]im)\b",
        "A caller gets a token for what she may do.",
        "A caller gets a token for what it may do. The user herself can read the header.",
    ),
    (
        r"\bat the (most|least)\b",
        "It waits five seconds at the most.",
        "It waits at most five seconds, and at the same time serves others.",
    ),
    (r"\banew\b", "The session begins anew.", "The session starts over."),
    (
        r"\bthere be\b",
        "A lock on the name, there be a row or not.",
        "A lock on the name. There may be no row.",
    ),
    (
        r"\b[Bb]eside\b",
        "A second server runs beside it.",
        "A second server runs next to it. Besides, there is a worker.",
    ),
    (r"\bof late\b", "A tag that was pulled of late.", "A tag that was pulled recently."),
    (
        r"^Else\b",
        "Else the upload fails.",
        "Otherwise the upload fails. If nothing else uses it, it is deleted.",
    ),
    (
        r"\b(go|goes|went) (on|in|away)\b",
        "The push goes on at another replica.",
        "The push continues at another replica, and so on.",
    ),
    (
        r"\b(lies|lie|stands) (in|at|on|under|there)\b",
        "The bytes lie in the bucket.",
        "The bytes are in the bucket. The flag stands for a set of options.",
    ),
    (
        r"\b(come|comes|came) to (an end|pass|be|its|the point)\b",
        "The session comes to its end.",
        "The session ends, and the client comes back.",
    ),
    (r"\b[Dd]oom(s|ed)?\b", "A doomed key waits.", "A key that is pending deletion waits."),
    (
        r"\b(in vain|for ever|as ever|bit by bit|thereof|therein)\b",
        "Content is deleted bit by bit.",
        "Content is deleted in small batches, forever.",
    ),
    (
        r"\b(is|are) at it\b",
        "A server that is at it is watched.",
        "A running server is watched.",
    ),
]

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FOLDERS = ("registry", "storage", "migrations", "tests", "benchmarks")

NOT_PROSE = re.compile(r"#(!| (noqa|type|ruff|fmt|pragma)\b)")
"""Comments that tools read."""


def split(text: str) -> Iterator[str]:
    """Yield the sentences of a paragraph, without code in backticks."""
    plain = " ".join(re.sub(r"`[^`]*`", "`code`", text).split())
    yield from re.split(r"(?<=[.;:!?])[)\"*]* ", plain)


def list_sentences(page: Path) -> Iterator[str]:
    """Yield the sentences of a Markdown page: paragraphs, list items, headings and table cells."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text())
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*#|]|\d+\.)\s?)| \| ", text):
        yield from split(paragraph.strip().lstrip("-*#|0123456789. "))


@cache
def list_docstrings(file: Path) -> list[str]:
    """Return the docstrings of a file, including those below variables and fields."""
    return [
        node.value.value
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def list_comments(file: Path) -> list[str]:
    """Return the comments of a file. Those on consecutive lines are one comment."""
    found: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type != tokenize.COMMENT or NOT_PROSE.match(token.string):
            continue
        text = token.string.lstrip("#:! ")
        is_alone = token.line.lstrip().startswith("#")
        if is_alone and found and token.start[0] == last + 1:
            found[-1] += f" {text}"
        else:
            found.append(text)
        last = token.start[0]
    return found


def list_code() -> list[Path]:
    return [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]


def find_worst(sentence: str) -> list[str]:
    return [pattern for pattern, *_ in WORST if re.search(pattern, sentence)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_in_plain_english(page: Path) -> None:
    assert [(each, found) for each in list_sentences(page) if (found := find_worst(each))] == []


def test_docstrings_are_in_plain_english() -> None:
    sentences = [
        (str(file.relative_to(ROOT)), sentence)
        for file in list_code()
        for text in list_docstrings(file)
        for paragraph in re.split(r"\n\s*\n", text)
        for sentence in split(paragraph)
    ]
    assert [(file, each) for file, each in sentences if find_worst(each)] == []
    assert len(sentences) > 3000


def test_comments_are_in_plain_english() -> None:
    sentences = [
        (str(file.relative_to(ROOT)), sentence)
        for file in list_code()
        for text in list_comments(file)
        for sentence in split(text)
    ]
    assert [(file, each) for file, each in sentences if find_worst(each)] == []
    assert len(sentences) > 1000


@pytest.mark.parametrize(("pattern", "bad", "good"), WORST, ids=lambda text: text[:30])
def test_each_pattern_finds_its_example_and_not_the_better_sentence(
    pattern: str, bad: str, good: str
) -> None:
    assert find_worst(bad) == [pattern]
    assert [found for sentence in split(good) for found in find_worst(sentence)] == []


def test_errors_in_docstrings_exist() -> None:
    """An error that was renamed must not keep its old name in a docstring."""
    name = re.compile(r"\b[A-Z]\w+Error\b")
    known, named = set(dir(builtins)), set()
    for file in list_code():
        in_docstrings = Counter(name.findall("\n".join(list_docstrings(file))))
        named |= set(in_docstrings)
        known |= set(Counter(name.findall(file.read_text())) - in_docstrings)
    assert sorted(named - known) == []
    assert len(named) > 30


def test_sentences_are_found_wherever_they_are(tmp_path: Path) -> None:
    page, code = tmp_path / "page.md", tmp_path / "code.py"
    page.write_text(
        "# What is kept\n\nOne. What is new is read\nfirst. `she`\n\n- three anew\n"
        "| cell | What is old is kept. |\n\n```sh\nnobody reads it anew\n```\n"
    )
    found = [sentence for sentence in list_sentences(page) if find_worst(sentence)]
    assert found == ["What is new is read first.", "three anew", "What is old is kept."]
    code.write_text("# One\n# thing\nx = 1  # two anew\ny = 2  # noqa: X\n")
    assert list_comments(code) == ["One thing", "two anew"]
    code.write_text('"""One."""\nX = 1\n"""Two."""\nclass A:\n    """Three."""\n    b = """no"""\n')
    assert sorted(list_docstrings(code)) == ["One.", "Three.", "Two."]
