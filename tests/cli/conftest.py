"""What the tests of the command line share: a text, a run of a very small model, and processes that meet the same one.

The command line's smallest preset has a width of 256; the tests make it one of 32, so that a run takes no time.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, TextSamples, TrainingHistory
from tinygpt2.cli import phases as module
from tinygpt2.cli import recipes
from tinygpt2.cli.main import main
from tinygpt2.config import PRESETS
from tinygpt2.recipe import recommend

TEXT = "The quick brown fox jumps over the lazy dog. " * 40
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 32}
SPEED = 1e8  # in FLOP/s, which no test measures: a run that is planned for 15 seconds is over at once
FAST = ("--tokenizer", "char", "--context-length", "16", "--device", "cpu")

# Several command lines in one process, since PyTorch takes seconds to begin; "++" stands between two.
SCRIPT = f"""
import itertools, sys
from tinygpt2.config import PRESETS
from tinygpt2.recipe import recommend
from tinygpt2.cli import recipes
recipes.first_speed = recommend.first_speed = recommend.measured_speed = lambda *_, **__: {SPEED}
PRESETS["gpt2-nano"] = {TINY}
from tinygpt2.cli.main import main
def run(words):
    sys.argv[1:] = words  # the process's own words, not those of a program around it
    return main()
commands = [list(words) for end, words in itertools.groupby(sys.argv[1:], "++".__eq__) if not end]
sys.exit(next((code for code in map(run, commands) if code), 0))
"""

Fails = Callable[..., None]


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "gpt2-nano", TINY)
    _without_measuring(monkeypatch)


def _without_measuring(patch: pytest.MonkeyPatch) -> None:
    for place, name in ((recommend, "first_speed"), (recommend, "measured_speed"), (recipes, "first_speed")):
        patch.setattr(place, name, lambda *_, **__: SPEED)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run_directory(text_file: Path) -> Path:
    """A model trained for two epochs by the command line; a test that writes there makes a copy."""
    directory = text_file.parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "gpt2-nano", TINY)
        _without_measuring(patch)
        options = ["--epochs", "2", "--preset", "gpt2-nano", "--quiet", *FAST]
        assert main(["train", str(text_file), "--out", str(directory), *options]) == 0
    return directory


@pytest.fixture(scope="session")
def plain_characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has no tokens but for the characters of the text."""
    directory = tmp_path_factory.mktemp("plain")
    tokenizer = CharTokenizer.from_text(TEXT)
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=16, n_layer=1, n_head=2, n_embd=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # its texts depend on it, and some tests need long ones
        GPT2Model(shape).save_pretrained(directory, tokenizer=tokenizer)
    return directory


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Returns a check that a command fails and tells it in one line, which has some parts."""

    def check(arguments: Sequence[object], *parts: str) -> None:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 1
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("tinygpt2: error: ")
        for part in parts:
            assert part in captured.err

    return check


@pytest.fixture
def begin() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Returns what begins a command line in a process of its own, which ends with the test at the latest."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, **options: object) -> "subprocess.Popen[str]":
        streams: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(os.fsdecode, map(_word, arguments))],
            encoding="utf-8",
            **{**streams, **options},  # type: ignore[call-overload]
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        with process:  # closes its streams, and waits for it
            process.kill()


def _word(argument: object) -> str | bytes:
    return argument if isinstance(argument, bytes) else str(argument)


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Returns what makes bytes the standard input."""

    def provide(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))

    return provide


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Returns what plans a run of the command line instead of training, and what it gives to `train`."""

    def plan(*words: object) -> SimpleNamespace:
        runs: list[SimpleNamespace] = []

        def note(model: GPT2Model, *given: Any, **rest: Any) -> TrainingHistory:  # noqa: ANN401 - as `train`
            train_loader, val_loader, config = given
            prompt = next((each.prompt for each in rest["callbacks"] if isinstance(each, TextSamples)), None)
            config = replace(config, sample_prompt=prompt)
            trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
            run = {"shape": model.config, "trained": trained, "config": config, "batch_size": train_loader.batch_size}
            run |= {"train_data": train_loader.dataset, "val_data": val_loader.dataset}
            runs.append(SimpleNamespace(options=rest["callbacks"][0].plan.options, **run, **rest))
            raise ValueError("planned")

        with monkeypatch.context() as patch:
            patch.setattr(module, "train", note)
            assert main(["train", "--device", "cpu", *map(str, words)]) == 1
        (run,) = runs
        return run

    return plan
