"""Runs the code in the pages, and writes what it printed and drew into them; makes notebooks and the layers' figure.

    python docs/tools/run_pages.py                    # all pages, in English and in Chinese; five minutes
    python docs/tools/run_pages.py guide/evaluate.md  # this page and its translation
    python docs/tools/run_pages.py --execute          # runs the notebook as Jupyter does, with few steps

In a page, a block of Python is followed by a block with the title "Prints", which holds what the code printed. Where
the title is "Prints, for instance", another machine may print other digits. The tutorial's chapters run in order, in
one directory; every other page runs by itself. Chinese pages have the same code as the English ones.
"""

import ast
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent
CHAPTERS = tuple(
    f"tutorial/{name}.md"
    for name in ("index", "targets", "untrained", "loss", "training", "decoding", "larger", "overfitting")
)
LANGUAGES = {"en": DOCS, "zh": DOCS / "zh"}
NOTEBOOK = "tutorial/train-gpt2.ipynb"

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<content>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*\Z")
PRINTS = ('text title="Prints"', 'text title="Prints, for instance"')
PRINTS_ZH = {'text title="输出"': PRINTS[0], 'text title="输出（示例）"': PRINTS[1]}
FIGURE = re.compile(r'^figure\.savefig\("([\w-]+\.svg)"\)$', re.MULTILINE)
IMAGE = re.compile(r"^!\[[^\]]*\]\(([^)]+)\)\n", re.MULTILINE)


@dataclass
class Block:
    """A block of Python in a page."""

    code: str
    line: int
    runs: bool
    prints: str | None = None
    exactly: bool = True

    def compiled(self, page: Path) -> object:
        """Returns the code with so many empty lines before it that a traceback shows the page's line."""
        return compile("\n" * self.line + self.code, str(page), "exec")

    @property
    def figures(self) -> list[str]:
        """Names of the files that it saves."""
        return FIGURE.findall(self.code)


def _info(fence: re.Match[str]) -> str:
    """Returns what a block is, in English."""
    return PRINTS_ZH.get(fence["info"], fence["info"])


def python_blocks(page: Path) -> list[Block]:
    """Returns the blocks of a page in order, each with what it prints where the page says so."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    for fence in FENCE.finditer(text):
        content = textwrap.dedent(fence["content"])
        info = _info(fence)
        if info in PRINTS:
            blocks[-1].prints, blocks[-1].exactly = content, info == PRINTS[0]
        elif info.split(" ")[0] == "python":
            before = text[: fence.start()]
            blocks.append(Block(content, line=before.count("\n") + 1, runs=not NOT_RUN.search(before)))
    return blocks


def chapters(language: str) -> list[Path]:
    """Returns the pages of the tutorial in order."""
    return [LANGUAGES[language] / name for name in CHAPTERS]


def outputs(page: Path, blocks: Sequence[Block]) -> Iterator[tuple[Block, str]]:
    """Runs the blocks of a page in the current directory and yields each with what it printed."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        if block.runs:
            with redirect_stdout(io.StringIO()) as printed:
                exec(block.compiled(page), namespace)  # type: ignore[arg-type] # noqa: S102 - our own documentation
            yield block, printed.getvalue()


def with_outputs(text: str, printed: Sequence[str]) -> str:
    """Returns a page whose blocks with the title "Prints" hold what the blocks before them printed."""
    waiting = iter(printed)
    last = ""

    def fill(fence: re.Match[str]) -> str:
        nonlocal last
        info = _info(fence)
        if info.split(" ")[0] == "python":
            if not NOT_RUN.search(text[: fence.start()]):
                last = next(waiting)
            return fence[0]
        if info in PRINTS:
            return f"{fence['indent']}```{fence['info']}\n{textwrap.indent(last, fence['indent'])}{fence['indent']}```"
        return fence[0]

    return FENCE.sub(fill, text)


def same_code(one: Block, other: Block) -> bool:
    """Returns whether two blocks differ in comments alone."""
    return ast.dump(ast.parse(one.code)) == ast.dump(ast.parse(other.code))


def notebook(language: str) -> str:
    """Returns the tutorial as a notebook with the outputs and figures that its pages have."""
    cells = [cell for page in chapters(language) for cell in _cells(page) if cell["source"]]
    for number, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{number}{cell['source']}".encode()).hexdigest()[:8]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


Cell = dict[str, object]


def _cells(page: Path) -> Iterator[Cell]:
    text = page.read_text(encoding="utf-8")
    blocks = iter(python_blocks(page))
    place = 0
    for fence in FENCE.finditer(text):
        info = _info(fence)
        if info in PRINTS or info.split(" ")[0] == "python":
            yield _markdown(text[place : fence.start()])
            place = fence.end()
            if info not in PRINTS:
                yield _code(next(blocks))
    yield _markdown(text[place:])


def _code(block: Block) -> Cell:
    if not block.runs:
        return _markdown(f"```python\n{block.code}```")
    shown: list[Cell] = []
    if block.prints:
        shown.append({"name": "stdout", "output_type": "stream", "text": block.prints.splitlines(keepends=True)})
    for name in block.figures:
        svg = (DOCS / "tutorial" / name).read_text(encoding="utf-8").splitlines(keepends=True)
        shown.append({"data": {"image/svg+xml": svg}, "metadata": {}, "output_type": "display_data"})
    source = FIGURE.sub("figure", block.code).rstrip("\n").splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": shown, "source": source}


def _markdown(text: str) -> Cell:
    return {"cell_type": "markdown", "metadata": {}, "source": _prose(text).splitlines(keepends=True)}


def _prose(text: str) -> str:
    """Returns Markdown for a notebook: without the images, which its outputs are, and without links into the site."""
    text = re.sub(r"<!-- not run: .+ -->", "", IMAGE.sub("", text))
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text).strip()


@contextmanager
def _inside(directory: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def execute(language: str) -> None:
    """Runs a notebook in a kernel of its own, and fails as it does."""
    import nbformat  # noqa: PLC0415
    from nbclient import NotebookClient  # noqa: PLC0415

    path = LANGUAGES[language] / NOTEBOOK
    content = nbformat.reads(few_steps(path.read_text(encoding="utf-8")), as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as place:
        NotebookClient(content, timeout=600, resources={"metadata": {"path": place}}).execute()


def few_steps(code: str) -> str:
    """Returns code that trains for three steps where it trained for epochs."""
    return re.sub(r"\bepochs=\d+", "max_steps=3", code)


def pages() -> list[str]:
    """Returns the names of the English pages that show what code prints, chapters of the tutorial in their order."""
    others = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
    names = [*CHAPTERS, *(name for name in others if name not in CHAPTERS and not name.startswith("zh/"))]
    return [name for name in names if any(block.prints is not None for block in python_blocks(DOCS / name))]


def build(name: str) -> None:
    """Runs a page in the current directory, and writes into it and its translation what came of it."""
    page = DOCS / name
    blocks = python_blocks(page)
    printed = [output for _, output in outputs(page, blocks)]
    for translation in (directory / name for directory in LANGUAGES.values()):
        text = translation.read_text(encoding="utf-8")
        translation.write_text(with_outputs(text, printed), encoding="utf-8")
        for figure in (figure for block in blocks for figure in block.figures):
            drawn = Path(figure).read_text(encoding="utf-8")
            drawn = re.sub(r"<dc:date>.*?</dc:date>", "", drawn, flags=re.DOTALL)
            (translation.parent / figure).write_text(drawn, encoding="utf-8")


def layers_on_the_page(page: Path) -> list[set[str]]:
    """Returns the packages of each layer, from the lowest, as a line of the page on the architecture has them."""
    (line,) = re.findall(r"^`\w+` → (?:.+\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", layer)) for layer in line.split("→")]


def layers_figure() -> str:
    """Returns the layers of the package as an SVG, the highest at the top; an arrow shows the way of imports."""
    layers = layers_on_the_page(DOCS / "architecture.md")
    width, height, drawn = 600, 40, []
    for row, packages in enumerate(reversed(layers)):
        names = [_file_name(name) for name in sorted(packages)]
        box = {name: 8.4 * len(name) + 24 for name in names}
        top, left = row * height, (width + 40 - sum(box.values()) - 16 * (len(names) - 1)) / 2
        drawn.append(f'<rect x="40" y="{top}" width="{width - 40}" height="{height - 6}" rx="4" fill="#c5cae9"/>')
        for name in names:
            colour = "#e0e0e0" if name.startswith("_") else "#ffffff"
            drawn.append(f'<rect x="{left:g}" y="{top + 4}" width="{box[name]:g}" height="26" rx="4" fill="{colour}"/>')
            drawn.append(f'<text x="{left + box[name] / 2:g}" y="{top + 22}">{name}</text>')
            left += box[name] + 16
    bottom = len(layers) * height - 6
    drawn.append(f'<path d="M20 2V{bottom - 2}M12 {bottom - 14}L20 {bottom - 2}L28 {bottom - 14}" {_ARROW}/>')
    style = 'font-family="monospace" font-size="14" text-anchor="middle" fill="#1a237e"'
    size = f'viewBox="0 0 {width} {bottom}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(drawn) + "\n</svg>\n"


_ARROW = 'fill="none" stroke="#7986cb" stroke-width="3"'


def _file_name(package: str) -> str:
    """Returns the name of a package as a directory, or that of a module as a file."""
    return f"{package}.py" if (DOCS.parent / f"src/tinygpt2/{package}.py").exists() else f"{package}/"


def main() -> None:
    """Runs all pages or those that are named, or the notebook."""
    if sys.argv[1:] == ["--execute"]:
        execute("en")  # the Chinese one has the same code, as a test checks
        return
    import matplotlib as mpl  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "tinygpt2"  # the same figure is the same file
    names = sys.argv[1:] or pages()
    with tempfile.TemporaryDirectory() as tutorial:
        for name in names:
            sys.stderr.write(f"{name}\n")
            with tempfile.TemporaryDirectory() as place, _inside(tutorial if name in CHAPTERS else place):
                build(name)
    for language, directory in LANGUAGES.items():
        (directory / "layers.svg").write_text(layers_figure(), encoding="utf-8")
        (directory / NOTEBOOK).write_text(notebook(language), encoding="utf-8")


if __name__ == "__main__":
    main()
