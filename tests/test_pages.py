"""The commands of the README and the pages: parsed by the real parsers, and run where they take seconds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nast_s2x.cli.main import SUBCOMMANDS, build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for pattern in (
        "README.md",
        "*/README.md",
        "configs/own_recordings.md",
        "nast_s2x/RELIABILITY.md",
        "nast_s2x/*/README.md",
        "examples/*/README.md",
        "examples/*/*/README.md",
    )
    for path in ROOT.glob(pattern)
    if path.parent.name not in (".venv", ".git")
)
FILES = ("configs/", "examples/", "scripts/", "tests/", "nast_s2x/")
PLACEHOLDER = re.compile(r"(?<![A-Za-z.])[A-Z][A-Z_]{2,}")
QUICK = ("translate", "generate", "doctor")
"""Subcommands that take seconds on the bundled recordings."""
LONGER = ("evaluate", "score", "benchmark")


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_blocks(page: Path) -> Iterator[list[str]]:
    """Lines of the shell blocks of a page: indented by four spaces, or fenced as bash."""
    block: list[str] = []
    fence = None
    for line in [*page.read_text("utf-8").splitlines(), ""]:
        if line.startswith("```"):
            fence = None if fence is not None else line[3:].strip()
            continue
        if fence == "bash":
            block.append(line)
        elif fence is None and line.startswith("    ") and not line.strip().startswith(("- ", "* ", "|")):
            block.append(line[4:])
        elif block:
            yield block
            block = []


def commands(page: Path) -> Iterator[str]:
    """Commands of a page, continued lines joined and comments left out."""
    for block in code_blocks(page):
        text = "\n".join(block).replace("\\\n", " ")
        for line in text.splitlines():
            command = re.sub(r"(^|\s)#.*$", "", line).strip()
            if command:
                yield command


def words_of(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # no shell command
        return []


def nast_commands() -> list[tuple[str, str]]:
    """(page, command) of each command of the console script."""
    found = []
    for page in PAGES:
        for command in commands(page):
            if "nast-s2x " in command and words_of(command)[:1] == ["nast-s2x"]:
                found.append((page_name(page), command))
    return found


def test_pages_have_commands() -> None:
    found = nast_commands()
    assert len(found) > 40 and {"README.md", "configs/README.md", "nast_s2x/vocoder/README.md"} <= {p for p, _ in found}
    assert {words_of(command)[1] for _, command in found} <= {*SUBCOMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_flags_exist(page: Path) -> None:
    """Every command is parsed; `...` and words in capitals stand for something of the reader's."""
    for command in commands(page):
        words = words_of(command)
        if words[:1] != ["nast-s2x"] or "..." in words:
            continue
        words = [word for word in words[1:] if word not in ("|", ">")]
        words = words[: words.index("--")] if "--" in words else words
        # Numbers and choices are written out in pages; a placeholder in their place is given a number.
        parser = build_parser(words[0])
        try:
            parser.parse_args(words)
        except SystemExit:
            numbers = [re.sub(r"^[A-Z]$", "1", word) for word in words]
            try:
                parser.parse_args(numbers)
            except SystemExit:
                pytest.fail(f"{page_name(page)}: {command}")


def test_promises_name_tests_that_exist() -> None:
    """`test_x.py` and `test_x.py::test_y` of the page of promises, and of the table in the README."""
    for page in ("nast_s2x/RELIABILITY.md", "README.md"):
        named = re.findall(r"`(?:tests/)?(test_\w+\.py)(?:::(test_\w+))?`", (ROOT / page).read_text("utf-8"))
        assert len(named) > 10
        for file, name in named:
            path = ROOT / "tests" / file
            assert path.is_file(), f"{page}: {file}"
            assert not name or re.search(rf"^def {name}\(", path.read_text("utf-8"), re.M), f"{page}: {file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_exist(page: Path) -> None:
    """Files of the repository that commands name, and links between pages."""
    for command in commands(page):
        for word in words_of(command):
            path = word.partition("=")[2] or word
            if path.startswith(FILES) and not PLACEHOLDER.search(path):
                pattern = path.partition("::")[0]
                assert list(ROOT.glob(pattern)), f"{command}: {pattern}"
    for target in re.findall(r"\]\(([^)#]+)[)#]", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def runnable(kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """Commands on the bundled files alone, each once."""
    found: dict[str, str] = {}
    for page, command in nast_commands():
        words = words_of(command)
        bundled = "examples/espeak_fr_en/" in command or words[1] in ("doctor", "benchmark")
        if words[1] in kinds and bundled and not PLACEHOLDER.search(command) and "/tmp/corpus" not in command:
            found.setdefault(command, page)
    return [(page, command) for command, page in found.items()]


def run_here(command: str, tmp_path: Path) -> None:
    """Run a command in the repository; its files under /tmp go to ``tmp_path``, and glob patterns are filled in."""
    words: list[str] = []
    for word in words_of(command)[1:]:
        word = word.replace("/tmp/", f"{tmp_path}/")
        words += sorted(map(str, ROOT.glob(word))) if "*" in word else [word]
    if words[0] in ("translate", "generate"):
        recordings = [word for word in words if word.endswith(".flac")]
        words = [word for word in words if word not in recordings[2:]]  # two recordings will do
    result = subprocess.run(
        [sys.executable, "-m", "nast_s2x.cli.main", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0 and (result.stdout or list(tmp_path.iterdir())), result.stderr


@pytest.mark.parametrize(("page", "command"), runnable(QUICK))
def test_quick_commands_run(page: str, command: str, tmp_path: Path) -> None:
    run_here(command, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), runnable(LONGER))
def test_longer_commands_run(page: str, command: str, tmp_path: Path) -> None:
    run_here(command, tmp_path)


def snippets() -> list[tuple[str, str]]:
    """(page, code) of the Python blocks."""
    return [
        (page_name(page), code)
        for page in PAGES
        for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]


@pytest.mark.parametrize(("page", "code"), snippets(), ids=[page for page, _ in snippets()])
def test_python_snippets_run(page: str, code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    if page == "README.md" and "system.translate" in code:
        first, *emissions = result.stdout.splitlines()
        assert first == " ".join(line.split(": ", 1)[1] for line in emissions) and len(emissions) > 3
