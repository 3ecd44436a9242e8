"""The page's modules of JavaScript, joined into scripts that need no files beside them."""

import re
from functools import cache
from importlib.resources import files

# All that a module imports are names, from a module beside it; all that it exports are named where they are defined.
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)


def source(name: str) -> str:
    """Returns the content of one of the page's own files."""
    return files("tinygpt2").joinpath("page", "web", name).read_text(encoding="utf-8")


@cache
def bundle(name: str) -> str:
    """Returns a script that does what a module does: all that it imports, directly or not, and then itself.

    Each module becomes a function that is called once and returns what the module exports, as $ and its name.

    >>> bundle("numbers").splitlines()[0]
    'const $numbers = (() => {'
    """
    ordered: list[str] = []

    def add(module: str) -> None:
        if module not in ordered:
            for _, imported in _IMPORT.findall(source(f"{module}.js")):
                add(imported)
            ordered.append(module)

    add(name)
    return "".join(map(_as_function, ordered))


def _as_function(module: str) -> str:
    code = source(f"{module}.js")
    exported = ", ".join(name for _, name in _EXPORT.findall(code))
    code = _EXPORT.sub(r"\1", _IMPORT.sub(r"const \1 = $\2;", code))
    return f"const ${module} = (() => {{\n{code}return {{ {exported} }};\n}})();\n"
