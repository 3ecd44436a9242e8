"""The documentation: its code runs and prints what it says, its lists are those of the package.

A block that cannot run offline has ``<!-- not run: why -->`` on the line before it. It is compiled all the same.
"""

import argparse
import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest

import tinygpt2
from run_pages import (
    CHAPTERS,
    FENCE,
    LANGUAGES,
    NOTEBOOK,
    Block,
    chapters,
    few_steps,
    layers_figure,
    layers_on_the_page,
    notebook,
    outputs,
    python_blocks,
    same_code,
)
from tinygpt2.cli.commands import MainParser
from tinygpt2.cli.main import main

PUBLIC: list[str] = vars(tinygpt2)["__all__"]  # which is made at run time, unseen by type checkers
ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

ENGLISH = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md")) if DOCS / "zh" not in path.parents]
CHINESE = [path.relative_to(DOCS / "zh").as_posix() for path in sorted((DOCS / "zh").rglob("*.md"))]
PAGES = [page for page in [README, *(DOCS / name for name in ENGLISH if name not in CHAPTERS)] if python_blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = [] if page == README else [block.code for block in python_blocks(README)]
    blocks = [block for block in python_blocks(page) if block.code not in elsewhere]
    for block, printed in outputs(page, blocks):
        if block.prints is not None:
            assert prints_as_it_says(block, printed), f"{page}:{block.line} prints {printed!r}"


def prints_as_it_says(block: Block, printed: str) -> bool:
    """Returns whether a block printed what its page shows, or where that is an instance, something of the same form."""
    said = block.prints or ""
    return printed == said if block.exactly else form(printed) == form(said)


def form(printed: str) -> str:
    """Returns the first word with a sign for each number in it."""
    return re.sub(r"[\d.]+", "#", printed.split(maxsplit=1)[0])


@pytest.mark.slow  # minutes: the model has 124 million parameters
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
            else:
                assert prints_as_it_says(block, printed), f"{page}:{block.line} prints {printed!r}"
        for figure in (figure for block in blocks for figure in block.figures):
            assert (tmp_path / figure).exists()
            assert (page.parent / figure).exists()
            assert f"]({figure})" in page.read_text(encoding="utf-8")


def test_every_page_is_there_in_chinese_but_for_docstrings_and_what_is_for_developers() -> None:
    docstrings = {name for name in ENGLISH if "\n::: " in f"\n{(DOCS / name).read_text(encoding='utf-8')}"}
    assert set(CHINESE) == set(ENGLISH) - docstrings - {"changelog.md", "contributing.md"}


@pytest.mark.parametrize("name", CHINESE)
def test_a_chinese_page_has_the_code_outputs_sections_and_tables_of_the_english_one(name: str) -> None:
    english, chinese = DOCS / name, DOCS / "zh" / name
    for one, other in zip(python_blocks(english), python_blocks(chinese), strict=True):
        assert same_code(one, other)
        assert (one.runs, one.prints, one.exactly) == (other.runs, other.prints, other.exactly)
    assert headings(english) == headings(chinese)
    assert numbers_in_tables(english) == numbers_in_tables(chinese)


LINK_TARGET = re.compile(r"\]\([^)]*\)|\]\[[^\]]*\]")  # another one in each language
UNITS = {"": 1, "万": 10**4, "million": 10**6, "亿": 10**8}


def numbers_in_tables(page: Path) -> list[tuple[list[float], list[str]]]:
    """Returns for each row its numbers and its versions, sorted: the languages may have them in another order."""
    text = LINK_TARGET.sub("]", FENCE.sub("", page.read_text(encoding="utf-8")))
    rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    number, version = re.compile(r"(\d[\d.,]*\d|\d) ?(万|million|亿|)"), re.compile(r"\d+(?:\.\d+){2,}")
    found = []
    for row in rows:
        numbers = number.findall(version.sub("", row))
        found.append((
            sorted(float(n.replace(",", "")) * UNITS[unit] for n, unit in numbers), sorted(version.findall(row)),
        ))  # fmt: skip
    return found


def test_the_figures_of_the_two_languages_are_the_same() -> None:
    figures = [path.relative_to(DOCS / "zh") for path in (DOCS / "zh").rglob("*.svg")]
    assert figures
    for figure in figures:
        assert (DOCS / figure).read_bytes() == (DOCS / "zh" / figure).read_bytes()


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ ", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_notebook_is_that_of_the_pages(language: str) -> None:
    written = (LANGUAGES[language] / NOTEBOOK).read_text(encoding="utf-8")
    assert written == notebook(language), "run python docs/tools/run_pages.py"
    nbformat.validate(nbformat.reads(written, as_version=4))  # type: ignore[no-untyped-call]


def test_code_fits_the_width_of_a_page() -> None:
    shown = [
        line for page in [*PAGES, *chapters("en")] for block in python_blocks(page) for line in block.code.splitlines()
    ]
    for module in (ROOT / "src/tinygpt2").rglob("*.py"):
        shown += re.findall(r"^ *((?:>>>|\.\.\.) .*)$", module.read_text(encoding="utf-8"), re.MULTILINE)
    assert [line for line in shown if len(line) > 80] == []


def test_the_site_begins_with_the_readmes_code() -> None:
    assert [block.code for block in python_blocks(DOCS / "index.md")] == [block.code for block in python_blocks(README)]


def test_the_reference_has_every_public_name_once_by_its_public_path() -> None:
    documented = [path for page in REFERENCE.glob("*.md") for path in documented_paths(page)]
    assert sorted(documented) == [f"tinygpt2.{name}" for name in PUBLIC]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    documented = getattr(tinygpt2, name)
    members = vars(documented).items() if isinstance(documented, type) else ()
    docstrings = [documented, *(value for member, value in members if not member.startswith("_"))]
    assert any(">>> " in (inspect.getdoc(value) or "") for value in docstrings)


def test_the_overviews_link_every_public_name_in_the_order_of_the_pages() -> None:
    pages = re.findall(r"reference/(\w+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    paths = [(page, path) for page in pages for path in documented_paths(REFERENCE / f"{page}.md")]
    assert overview_links("en") == [(path.removeprefix("tinygpt2."), path) for _, path in paths]
    assert overview_links("zh") == [
        (path.removeprefix("tinygpt2."), f"../../en/reference/{page}/#{path}") for page, path in paths
    ]


def overview_links(language: str) -> list[tuple[str, str]]:
    """Returns each linked name in the overview of the reference, with what it leads to."""
    target = {"en": r"\[([\w.]+)\]", "zh": r"\(([^)]+)\)"}[language]
    text = (LANGUAGES[language] / "reference/index.md").read_text(encoding="utf-8")
    return re.findall(r"\[`(\w+)`\]" + target, text)


def documented_paths(page: Path) -> list[str]:
    """Returns what a page of the reference documents, in order."""
    return re.findall(r"^::: (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", ["", "train", "generate", "evaluate", "tokenize", "plot", "info"])
def test_the_reference_shows_the_help_of_each_command(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    page = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## tinygpt2 {command}".rstrip() + "\n")[2]
    shown = FENCE.search(section)
    assert shown is not None
    assert shown["content"].split() == capsys.readouterr().out.split()  # Python's versions differ in line breaks


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = MainParser()
    return {"tinygpt2": parser} | {f"tinygpt2 {name}": command for name, command in parser.commands.choices.items()}


@pytest.mark.parametrize("command", commands())
def test_the_chinese_reference_explains_each_argument_with_its_numbers(command: str) -> None:
    page = (DOCS / "zh/reference/command-line.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    explained = dict(re.findall(r"^- (`.+?`)：(.+)$", section, re.MULTILINE))
    expected = {}
    for action in commands()[command]._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        names = action.option_strings or [str(action.metavar)]
        value = f" {action.metavar}" if action.option_strings and action.metavar else ""
        expected["，".join(f"`{name}{value}`" for name in names)] = numbers(str(action.help) % vars(action))
    assert {names: numbers(text) for names, text in explained.items()} == expected


def numbers(text: str) -> list[str]:
    """Returns the numbers in a text, sorted, but for those within a word such as ``gpt2``."""
    return sorted(re.findall(r"(?<![\w:-])\d[\d.,]*\d|(?<![\w:-])\d", text, re.ASCII))


def test_the_architecture_shows_the_layers_that_are_enforced() -> None:
    tree = ast.parse((ROOT / "tests/test_layers.py").read_text(encoding="utf-8"))
    enforced = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )
    for directory in LANGUAGES.values():
        assert layers_on_the_page(directory / "architecture.md") == enforced
        assert (directory / "layers.svg").read_text(encoding="utf-8") == layers_figure(), (
            "run python docs/tools/run_pages.py"
        )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_architecture_shows_every_package(language: str) -> None:
    page = LANGUAGES[language] / "architecture.md"
    tree = next(block["content"] for block in FENCE.finditer(page.read_text(encoding="utf-8")))
    shown = re.findall(r"^  (\w+)(?:\.py|/)", tree, re.MULTILINE)
    packages = set.union(*layers_on_the_page(page))
    assert sorted(shown) == sorted(packages - {"__main__"} | {"__init__"})


@pytest.mark.parametrize("page", ["CITATION.cff", "docs/cite.md", "docs/zh/cite.md"])
def test_the_citation_names_this_version(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r"^ *version *[:=] *\{?([\d.]+)", text, re.MULTILINE) == [tinygpt2.__version__]


@pytest.mark.parametrize(
    "page", ["README.md", "docs/index.md", "docs/guide/troubleshooting.md", "docs/zh/index.md",
             "docs/zh/guide/troubleshooting.md"]
)  # fmt: skip
def test_the_cpu_build_to_install_first_is_the_version_in_the_constraints(page: str) -> None:
    """With another one, the next command would replace it by the build with CUDA."""
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    commands = re.findall(r"install torch==(\S+) --index-url (\S+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert commands == [(pinned, "https://download.pytorch.org/whl/cpu")]


def test_the_list_for_language_models_links_pages_that_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (DOCS / "llms.txt").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
