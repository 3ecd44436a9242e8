"""The runs that a person may have meant."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2.cli.runs import newest_to_resume, runs_in, similar

Fails = Callable[..., None]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(path: Path, age: int, *names: str) -> None:
    """Makes a run, which has some files and directories, of some age in seconds."""
    path.mkdir(parents=True)
    for name in names:
        (path / name).mkdir() if name.startswith("checkpoint") else (path / name).write_text("{}")
    os.utime(path, (10**9 - age, 10**9 - age))


def test_runs_are_listed_newest_first() -> None:
    make_run(Path("runs/old"), 9, "config.json")
    make_run(Path("runs/new"), 1, "options.json")
    make_run(Path("runs/between"), 5, "checkpoint-3")
    make_run(Path("runs/.hidden"), 0, "config.json")
    make_run(Path("runs/notes"), 0, "readme.txt")
    Path("runs/file").write_text("x")
    assert [run.path for run in runs_in(Path("runs"))] == [Path("runs/new"), Path("runs/between"), Path("runs/old")]
    assert runs_in(Path("none")) == runs_in(Path("runs/file")) == []
    assert newest_to_resume() is None
    make_run(Path("runs/resumable"), 99, "options.json", "checkpoint-3")
    assert newest_to_resume() == runs_in(Path("runs"))[-1]


def test_a_similar_name_is_looked_for_beside_it_and_in_runs() -> None:
    make_run(Path("runs/novel"), 1, "config.json")
    make_run(Path("other/model"), 1, "config.json")
    for name in ("runs/nvel", "novel", "elsewhere/novel-2"):
        assert similar(Path(name)) == Path("runs/novel")
    assert similar(Path("other/modle")) == Path("other/model")
    assert similar(Path("quite-different")) is None


@pytest.mark.parametrize(
    "command",
    [
        ["info", "DIR"],
        ["plot", "DIR"],
        ["generate", "--model", "DIR", "x", "--device", "cpu"],
        ["evaluate", "--model", "DIR", "text.txt", "--device", "cpu"],
        ["tokenize", "--model", "DIR", "text.txt", "--out", "x.tokens"],
        ["train", "--from-pretrained", "DIR", "text.txt", "--device", "cpu", "--quiet"],
        ["train", "--resume", "--out", "DIR", "--device", "cpu"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_names_the_runs_that_may_have_been_meant(command: list[str], fails: Fails) -> None:
    Path("text.txt").write_text("The quick brown fox. " * 99)
    make_run(Path("models/zh"), 9, "config.json")
    make_run(Path("models/mid2"), 1, "config.json")

    def words(directory: str) -> list[str]:
        return [directory if word == "DIR" else word for word in command]

    newest, other = Path("models/mid2"), Path("models/zh")
    fails(words("models"), f"models is not a run directory; it holds runs: {newest}, {other}; pass one of them")
    fails(words(str(Path("models/mid"))), f"did you mean {newest}?")


def test_the_list_is_bounded(fails: Fails) -> None:
    for i in range(7):
        make_run(Path(f"runs/{i}"), i, "config.json")
    listed = ", ".join(str(Path("runs", str(i))) for i in range(5))
    fails(["info", "runs"], f"it holds runs: {listed} and 2 more; pass one of them")
    fails(["info", "nothing"], f"nothing does not exist; in runs there are {listed} and 2 more")


def test_without_runs_the_error_is_that_of_the_library(fails: Fails) -> None:
    fails(["info", "nothing"], "nothing does not exist; expected a directory with config.json and model.safetensors")
    Path("empty").mkdir()
    fails(["info", "empty"], "empty has no config.json")


def test_a_run_with_a_fault_is_told_the_fault_not_other_runs(fails: Fails) -> None:
    make_run(Path("runs/fox"), 1, "config.json")
    make_run(Path("runs/fox/inner"), 1, "config.json")
    fails(["info", "runs/fox"], "has no model.safetensors")


def test_resuming_without_a_directory_names_the_newest_run(fails: Fails) -> None:
    fails(["train", "--resume"], "--resume needs --out DIR, the directory of the run to resume\n")
    make_run(Path("runs/old"), 9, "options.json", "checkpoint-3")
    make_run(Path("runs/a b"), 1, "options.json", "checkpoint-3")
    make_run(Path("runs/finished"), 0, "config.json")
    quoted = f'"{Path("runs/a b")}"' if os.name == "nt" else "'runs/a b'"
    fails(
        ["train", "--epochs", "3", "--resume", "--quiet"],
        f"the run to resume; for the newest: tinygpt2 train --epochs 3 --out {quoted} --resume --quiet\n",
    )
