"""Builds the site: the English pages in en/, the Chinese ones in zh/, a first page that chooses between them, a model.

    python docs/tools/make_site.py site                              # a directory that a web server can serve
    python docs/tools/make_site.py site https://example.org/docs/    # with its address, too
    python docs/tools/make_site.py site https://example.org/docs/ 2  # with a model that was trained for two minutes

With the address the language switch stays on the page. ``model.html`` has a model that is trained on the sample text,
by default for half a minute.

To see a language while you write, use ``mkdocs serve`` or ``mkdocs serve -f mkdocs.zh.yml``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CONFIGURATIONS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}

# Without JavaScript the reader gets English, and the language switch.
FIRST_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>tinygpt2</title>
<script>location.replace(navigator.language.startsWith("zh") ? "zh/" : "en/")</script>
<noscript><meta http-equiv="refresh" content="0; url=en/"></noscript>
<a href="en/">English</a> <a href="zh/" lang="zh">中文</a>
</html>
"""


def make_site(directory: Path, address: str = "", minutes: float = 0.5) -> None:
    """Builds the site into a directory, and trains a model for it; any warning is an error."""
    for language, configuration in CONFIGURATIONS.items():
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", configuration]
        environment = os.environ | {"SITE_URL": f"{address}{language}/" if address else "", "NO_MKDOCS_2_WARNING": "1"}
        subprocess.run([*command, "-d", str(directory.resolve() / language)], cwd=ROOT, env=environment, check=True)
    (directory / "index.html").write_text(FIRST_PAGE, encoding="utf-8")
    (directory / "llms.txt").write_text(list_for_language_models(), encoding="utf-8")
    make_model(directory / "model.html", minutes)
    if address:  # without it the page's own links lead nowhere from the top
        shutil.copy(directory / "en/404.html", directory)


def make_model(page: Path, minutes: float) -> None:
    """Trains a model on the sample text, and writes the page in which it works."""
    program = [sys.executable, "-m", "tinygpt2"]
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "sample-text"
        subprocess.run([*program, "train", "--minutes", str(minutes), "--out", run, "--quiet"], check=True)
        subprocess.run([*program, "page", run, "--include-text", "--out", page], check=True, stdout=subprocess.DEVNULL)


def list_for_language_models() -> str:
    """Returns ``docs/llms.txt`` with links to the pages of the site in place of their sources."""

    def link(source: re.Match[str]) -> str:
        page = Path(source[1] if source[1].startswith("zh/") else f"en/{source[1]}")
        return f"]({(page.parent if page.stem == 'index' else page.with_suffix('')).as_posix()}/)"

    return re.sub(r"\]\(([^)]+\.md)\)", link, (ROOT / "docs/llms.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(__doc__)
    directory, address, minutes = (*sys.argv[1:], *("", "0.5")[len(sys.argv) - 2 :])
    make_site(Path(directory), address, float(minutes))
