"""The public API is the one in ``tests/api.txt``, and each change of it is in the changelog.

Every public name carries a hash of the changelog's text about it, so ``python tests/test_api.py`` writes a changed
signature only once an entry under ``[Unreleased]`` names it and has been added or reworded since. The signatures are
read from the source, not from the imported objects, because the latter look different from one Python to the next.
"""

import ast
import difflib
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/tinygpt2"
API = ROOT / "tests/api.txt"
CHANGELOG = ROOT / "CHANGELOG.md"

Definition = ast.ClassDef | ast.FunctionDef


def modules_of_names() -> dict[str, str]:
    """Returns the module of each public name, as ``tinygpt2/__init__.py`` imports it for type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.name: (node.module or "").removeprefix("tinygpt2.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname  # what marks a name as public for a type checker
    }


def modules_of_names_at_run_time() -> dict[str, str]:
    """Returns the module from which ``tinygpt2/__init__.py`` imports each name when it is first used."""
    import tinygpt2  # noqa: PLC0415 - so that the script runs where tinygpt2 is not installed

    names: dict[str, list[str]] = vars(tinygpt2)["_NAMES"]
    return {name: module for module, found in names.items() for name in found}


def signature(function: ast.FunctionDef) -> str:
    """Returns a function's head with its decorators, in one line."""
    decorators = "".join(f"@{ast.unparse(decorator)} " for decorator in function.decorator_list)
    returns = "" if function.returns is None else f" -> {ast.unparse(function.returns)}"
    return f"{decorators}def {function.name}({ast.unparse(function.args)}){returns}"


def is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name != "__post_init__")


def described(definitions: list[Definition]) -> Iterator[str]:
    """Yields the lines about one name: a function with its overloads, or a class with its public members."""
    for definition in definitions:
        if isinstance(definition, ast.FunctionDef):
            yield signature(definition)
            continue
        decorators = "".join(f"@{ast.unparse(decorator)} " for decorator in definition.decorator_list)
        yield f"{decorators}class {definition.name}({', '.join(map(ast.unparse, definition.bases))})"
        for member in definition.body:
            if isinstance(member, ast.FunctionDef) and is_public(member.name):
                yield f"    {signature(member)}"
            elif isinstance(member, ast.AnnAssign) and is_public(ast.unparse(member.target)):
                yield f"    {ast.unparse(member)}"


def rendered() -> dict[str, str]:
    """Returns the signatures of each public name."""
    api = {}
    for name, module in modules_of_names().items():
        body = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")).body
        found = [node for node in body if isinstance(node, Definition) and node.name == name]
        api[name] = "\n".join(described(found))
    return dict(sorted(api.items()))


def entries(changelog: str, name: str) -> str:
    """Returns the entries of the changelog that have the name in backticks, alone or in a call such as `name(...)`."""
    items = re.findall(r"^- .*(?:\n(?:  .*)?)*", changelog, re.MULTILINE)
    return "\n".join(" ".join(item.split()) for item in items if re.search(rf"`{name}\b[^`]*`", item))


def unreleased(changelog: str) -> str:
    return changelog.partition("## [Unreleased]")[2].partition("\n## [")[0]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def written() -> dict[str, tuple[str, str]]:
    """Returns what ``api.txt`` has: the hash of the changelog's entries and the signatures of each name."""
    blocks = re.findall(r"^# (\w+) (\w+)\n((?:[^#\n].*\n)+)", API.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (entry, lines.rstrip("\n")) for name, entry, lines in blocks}


def missing_entries(new: dict[str, str], old: dict[str, tuple[str, str]], changelog: str) -> list[str]:
    """Returns the names that are new, changed or gone without an entry of their own under ``[Unreleased]``."""
    section = unreleased(changelog)
    missing = []
    for name in sorted(new.keys() | old.keys()):
        entry, signatures = old.get(name, ("", ""))
        if new.get(name, "") == signatures:
            continue
        now = entries(section, name)
        if not now or digest(now) == entry:
            missing.append(name)
    return missing


def write() -> None:
    """Writes ``api.txt``, if the changelog tells of every change."""
    changelog, new = CHANGELOG.read_text(encoding="utf-8"), rendered()
    old = written() if API.exists() else {}
    if missing := missing_entries(new, old, changelog):
        sys.exit(f"First write what changed in {', '.join(missing)} under [Unreleased] in CHANGELOG.md")
    section = unreleased(changelog)
    blocks = []
    for name, signatures in new.items():
        same = name in old and old[name][1] == signatures
        entry = old[name][0] if same else digest(entries(section, name))
        blocks.append(f"# {name} {entry}\n{signatures}\n")
    API.write_text("\n".join(blocks), encoding="utf-8", newline="\n")


def test_the_api_is_the_one_that_is_written_down() -> None:
    new = rendered()
    old = {name: signatures for name, (_, signatures) in written().items()}
    before, after = ("\n".join(api.values()).split("\n") for api in (old, new))
    difference = "\n".join(difflib.unified_diff(before, after, lineterm=""))
    assert new == old, (
        f"The public API has changed. Write what changed under [Unreleased] in CHANGELOG.md, naming it in backticks, "
        f"then run python tests/test_api.py\n{difference}"
    )


@pytest.mark.parametrize("name", sorted(modules_of_names()))
def test_every_public_name_is_in_the_changelog(name: str) -> None:
    assert entries(CHANGELOG.read_text(encoding="utf-8"), name), f"CHANGELOG.md has no entry with `{name}`"


def test_every_public_name_is_described() -> None:
    assert list(rendered()) == sorted(modules_of_names_at_run_time())
    assert all(rendered().values())


def test_type_checkers_are_told_the_names_that_there_are() -> None:
    assert modules_of_names() == modules_of_names_at_run_time()


def test_a_change_needs_an_entry_of_its_own() -> None:
    before = "## [Unreleased]\n\n- `train`, which trains.\n- `evaluate`.\n\n## [0.1.0]\n\n- `stream`.\n"
    old = {
        name: (digest(entries(unreleased(before), name)), f"def {name}()") for name in ("train", "evaluate", "stream")
    }
    new = {"train": "def train(model)", "evaluate": "def evaluate()", "stream": "def stream(model)"}
    assert missing_entries(new, old, before) == ["stream", "train"]
    after = before.replace("- `evaluate`.", "- `evaluate`.\n- `train` and `stream` take\n  a model.")
    assert missing_entries(new, old, after) == []
    assert missing_entries({}, old, after) == ["evaluate"]


if __name__ == "__main__":
    write()
