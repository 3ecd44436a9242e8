"""The documentation: its code runs and prints what it says, its lists are those of the package.

A block that cannot run offline has ``<!-- not run: why -->`` on the line before it. It is compiled all the same.
"""

import ast
import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

import tinygpt2
from tinygpt2.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<content>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*\Z")
PRINTS = 'text title="Prints"'  # the info string of a block that holds what the block before it prints


@dataclass
class Block:
    """A block of Python in a page."""

    code: str
    line: int
    runs: bool
    prints: str | None = None

    @property
    def padded(self) -> str:
        """The code with so many empty lines before it that a traceback shows the page's line."""
        return "\n" * self.line + self.code


def python_blocks(page: Path) -> list[Block]:
    """Returns the blocks of a page in order, each with what it prints where the page says so."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    for fence in FENCE.finditer(text):
        content = textwrap.dedent(fence["content"])
        if fence["info"] == PRINTS:
            blocks[-1].prints = content
        elif fence["info"].split(" ")[0] == "python":
            before = text[: fence.start()]
            blocks.append(Block(content, line=before.count("\n") + 1, runs=not NOT_RUN.search(before)))
    return blocks


PAGES = [page for page in [README, *sorted(DOCS.rglob("*.md"))] if python_blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = [] if page == README else [block.code for block in python_blocks(README)]
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in python_blocks(page):
        code = compile(block.padded, str(page), "exec")
        if not block.runs or block.code in elsewhere:
            continue
        with redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)  # noqa: S102 - our own documentation
        assert block.prints is None or printed.getvalue() == block.prints, f"{page}:{block.line}"


def test_the_site_begins_with_the_readmes_code() -> None:
    assert [block.code for block in python_blocks(DOCS / "index.md")] == [block.code for block in python_blocks(README)]


def test_the_reference_has_every_public_name_once() -> None:
    documented = [name for page in REFERENCE.glob("*.md") for name in members(page)]
    assert sorted(documented) == list(tinygpt2.__all__)


def test_the_overview_links_every_public_name_to_its_page() -> None:
    links = re.findall(r"\[`(\w+)`\]\[tinygpt2\.(\w+)\.(\w+)\]", (REFERENCE / "index.md").read_text(encoding="utf-8"))
    there = [(name, page.stem, name) for page in REFERENCE.glob("*.md") for name in members(page)]
    assert sorted(links) == sorted(there)


def members(page: Path) -> list[str]:
    """Returns the names that a page of the reference shows."""
    text = page.read_text(encoding="utf-8")
    of_module = re.findall(r"^ {8}- (\w+)$", text, re.MULTILINE)
    return of_module + re.findall(r"^::: tinygpt2\.\w+\.(\w+)$", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["", "train", "generate", "evaluate", "tokenize", "plot", "info"])
def test_the_reference_shows_the_help_of_each_command(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    page = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## tinygpt2 {command}".rstrip() + "\n")[2]
    shown = FENCE.search(section)
    assert shown is not None
    assert shown["content"].split() == capsys.readouterr().out.split()  # Python's versions differ in line breaks


def test_the_architecture_shows_the_layers_that_are_enforced() -> None:
    tree = ast.parse((ROOT / "tests/test_layers.py").read_text(encoding="utf-8"))
    enforced = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )
    assert list(layers_on_the_page()) == list(enumerate(enforced))


def layers_on_the_page() -> Iterator[tuple[int, set[str]]]:
    """Yields the number and the modules of each row in the table of layers."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for number, modules in re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE):
        yield int(number), set(re.findall(r"`(\w+)`", modules))
