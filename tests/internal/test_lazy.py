"""The public names: imported when first used, and named by their public path however they are reached."""

import importlib
import inspect
import pickle
import pydoc
import subprocess
import sys
import threading

import pytest

import tinygpt2
from tinygpt2 import GPT2Config, IncompatibleRunError, TrainingHistory

PUBLIC: list[str] = vars(tinygpt2)["__all__"]


def printed(code: str) -> str:
    """Returns what a program prints in a fresh process."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert result.stderr == ""
    return result.stdout.strip()


def test_importing_the_package_imports_nothing_large() -> None:
    large = "{'torch', 'numpy', 'tiktoken', 'safetensors', 'tqdm'}"
    assert printed(f"import sys, tinygpt2; print({large} & set(sys.modules))") == "set()"
    assert printed(f"import sys, tinygpt2.config; print({large} & set(sys.modules))") == "set()"


@pytest.mark.parametrize(
    "code",
    [
        "import tinygpt2; print(tinygpt2.GPT2Config.__module__)",
        "from tinygpt2 import GPT2Config; print(GPT2Config.__module__)",
        "from tinygpt2.config import GPT2Config; import tinygpt2; tinygpt2.train; print(GPT2Config.__module__)",
    ],
)
def test_a_name_says_its_public_path(code: str) -> None:
    assert printed(code) == "tinygpt2"


def test_a_traceback_names_an_error_that_was_never_asked_for_by_its_public_path() -> None:
    code = "from tinygpt2 import newest_checkpoint; import tempfile, pathlib\n"
    code += "d = tempfile.mkdtemp(); pathlib.Path(d, 'checkpoint-1').mkdir()\n"
    code += "try: newest_checkpoint(d)\n"
    code += "except ValueError as error: print(type(error).__module__)\n"
    assert printed(f"import logging; logging.disable()\n{code}") == "tinygpt2"


def test_pickles_have_the_public_path() -> None:
    pickled = pickle.dumps([GPT2Config(n_layer=2), IncompatibleRunError("x", ["y"]), TrainingHistory()])
    assert b"tinygpt2.config" not in pickled
    assert b"tinygpt2.training" not in pickled
    shape, error, history = pickle.loads(pickled)  # noqa: S301 - made here
    assert shape == GPT2Config(n_layer=2)
    assert error.differences == ("y",)
    assert history == TrainingHistory()
    content = repr(pickle.dumps(GPT2Config(n_layer=2)))
    assert printed(f"import pickle; print(pickle.loads({content}).n_layer)") == "2"


def test_all_names_are_there_to_ask_for() -> None:
    assert set(PUBLIC) <= set(dir(tinygpt2))
    assert {"__version__", "__doc__"} <= set(dir(tinygpt2))
    assert {name for name, _ in inspect.getmembers(tinygpt2)} >= set(PUBLIC)
    assert {getattr(tinygpt2, name).__module__ for name in PUBLIC} == {"tinygpt2"}
    everything: dict[str, object] = {}
    exec("from tinygpt2 import *", everything)  # noqa: S102 - the statement is what is tested
    assert everything.keys() - {"__builtins__"} == set(PUBLIC)


def test_help_has_all_names() -> None:
    text = pydoc.plain(pydoc.render_doc(tinygpt2))
    assert [name for name in PUBLIC if name not in text] == []
    assert "def perplexity" in inspect.getsource(tinygpt2.perplexity)


def test_a_name_that_there_is_not_is_an_attribute_error_that_python_can_complete() -> None:
    with pytest.raises(AttributeError, match="module 'tinygpt2' has no attribute 'GPT2Konfig'") as info:
        tinygpt2.GPT2Konfig  # type: ignore[attr-defined] # noqa: B018
    assert (info.value.name, info.value.obj) == ("GPT2Konfig", tinygpt2)
    assert not hasattr(tinygpt2, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'GPT2Konfig'"):
        from tinygpt2 import GPT2Konfig  # type: ignore[attr-defined] # noqa: F401, PLC0415


def test_a_name_is_looked_up_once() -> None:
    first = tinygpt2.GPT2Config
    assert vars(tinygpt2)["GPT2Config"] is first is GPT2Config


def test_threads_that_ask_at_once_get_the_same() -> None:
    for name in PUBLIC:
        vars(tinygpt2).pop(name, None)
    found: list[object] = []
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait()
        found.append([getattr(tinygpt2, name) for name in PUBLIC])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(names == found[0] for names in found)


def test_reloading_keeps_the_names() -> None:
    importlib.reload(tinygpt2)
    assert tinygpt2.GPT2Config is GPT2Config
