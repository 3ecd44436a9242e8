"""The documentation: its code runs and prints what it says, its lists are those of the package.

A block that cannot run offline has ``<!-- not run: why -->`` on the line before it. It is compiled all the same.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

import tinygpt2
from build import CHAPTERS, FENCE, LANGUAGES, NOTEBOOK, chapters, few_steps, notebook, outputs, python_blocks, same_code
from tinygpt2.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

TUTORIAL = [*chapters("en"), *chapters("zh")]
PAGES = [page for page in [README, *sorted(DOCS.rglob("*.md"))] if python_blocks(page) and page not in TUTORIAL]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = [] if page == README else [block.code for block in python_blocks(README)]
    blocks = [block for block in python_blocks(page) if block.code not in elsewhere]
    for block, printed in outputs(page, blocks):
        assert block.prints is None or printed == block.prints, f"{page}:{block.line}"


def test_the_tutorial_runs_and_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three steps where the pages have epochs, so that of what depends on them only the form can be compared."""
    monkeypatch.chdir(tmp_path)
    for page in chapters("en"):
        blocks = python_blocks(page)
        for block in blocks:
            block.code = few_steps(block.code)
        for block, printed in outputs(page, blocks):
            if block.prints is None:
                assert not printed, f"{page}:{block.line} prints something that the page does not show"
            elif block.exactly:
                assert printed == block.prints, f"{page}:{block.line}"
            else:
                assert first_word(printed) == first_word(block.prints), f"{page}:{block.line}"
        for figure in (figure for block in blocks for figure in block.figures):
            assert (tmp_path / figure).exists()
            assert (page.parent / figure).exists()
            assert f"]({figure})" in page.read_text(encoding="utf-8")


def first_word(printed: str) -> str:
    return re.sub(r"[\d.]+", "#", printed.split(maxsplit=1)[0])


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_chinese_tutorial_has_the_same_code_outputs_and_sections(name: str) -> None:
    english, chinese = (LANGUAGES[language] / f"{name}.md" for language in ("en", "zh"))
    for one, other in zip(python_blocks(english), python_blocks(chinese), strict=True):
        assert same_code(one, other)
        assert (one.runs, one.prints, one.exactly) == (other.runs, other.prints, other.exactly)
    assert headings(english) == headings(chinese)


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ ", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_notebook_is_that_of_the_pages(language: str) -> None:
    written = (LANGUAGES[language] / NOTEBOOK).read_text(encoding="utf-8")
    assert written == notebook(language), "run python docs/build.py"
    nbformat.validate(nbformat.reads(written, as_version=4))  # type: ignore[no-untyped-call]


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


def test_the_list_for_language_models_links_pages_that_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (DOCS / "llms.txt").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
