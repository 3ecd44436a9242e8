"""The directory of a run: its names, how it comes to be, and what is found in it."""

import os
import threading
from pathlib import Path

import pytest

from tinygpt2.run.directory import RunDirectory


def test_every_name_is_in_the_directory() -> None:
    run = RunDirectory(Path("runs/fox"))
    names = [run.checkpoint(0), run.best, run.history, run.plot, run.options, run.tokenizer, run.config]
    assert [path.name for path in names] == [
        "checkpoint-0", "best", "history.json", "losses.png", "options.json", "tinygpt2_tokenizer.json", "config.json",
    ]  # fmt: skip
    assert {path.parent for path in names} == {run.path}


def test_checkpoints_are_newest_first_and_by_number(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for step in (9, 100, 0, 10):
        run.checkpoint(step).mkdir()
    assert [run.step_of(path) for path in run.checkpoints()] == [100, 10, 9, 0]


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-", "checkpoint-01", "checkpoint-00", "checkpoint--1", "checkpoint-1 ", "checkpoint-1\n",
        "checkpoint-+1", "checkpoint-1_0", "checkpoint-٣", "checkpoint-３", "checkpoint-²", "checkpoint-1.damaged",
        ".checkpoint-1.old", ".checkpoint-1.0123abcd", "Checkpoint-1", "xcheckpoint-1", "checkpoint-1e3", "best",
    ],
)  # fmt: skip
def test_other_names_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    """``int`` reads digits of every script, and two names of one step would be two checkpoints."""
    (tmp_path / name).mkdir()
    assert RunDirectory(tmp_path).checkpoints() == []
    with pytest.raises(ValueError, match="expected the name of a checkpoint"):
        RunDirectory.step_of(tmp_path / name)


def test_a_directory_that_is_not_there_has_no_checkpoints(tmp_path: Path) -> None:
    assert RunDirectory(tmp_path / "none").checkpoints() == []


# --- making one ---


def test_a_new_directory_gets_a_number_where_its_name_is_taken(tmp_path: Path) -> None:
    parent = tmp_path / "a" / "runs"
    assert RunDirectory.create(parent, "fox").path == parent / "fox"
    assert RunDirectory.create(parent, "fox").path == parent / "fox-2"
    (parent / "fox-3").touch()
    assert RunDirectory.create(parent, "fox").path == parent / "fox-4"


def test_runs_that_begin_together_get_a_directory_each(tmp_path: Path) -> None:
    """Each used to look for a free name first and to make the directory much later."""
    found: list[Path] = []
    barrier = threading.Barrier(16)

    def begin() -> None:
        barrier.wait()
        found.append(RunDirectory.create(tmp_path / "runs", "fox").path)

    threads = [threading.Thread(target=begin) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16
    assert {path.name for path in found} == {"fox", *(f"fox-{i}" for i in range(2, 17))}


def test_a_directory_that_is_asked_for_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunDirectory.claim(tmp_path / "empty") == RunDirectory(tmp_path / "empty")
    new = tmp_path / "a" / "b"
    assert RunDirectory.claim(new).path.is_dir()
    (new / ".hidden").touch()
    with pytest.raises(ValueError, match=r"b is not empty; choose another directory, or remove it"):
        RunDirectory.claim(new)
    (new / "options.json").touch()
    with pytest.raises(ValueError, match=r"not empty; choose another directory, resume the run in it \(--resume\), or"):
        RunDirectory.claim(new)
    with pytest.raises(FileExistsError):
        RunDirectory.claim(new / "options.json")


def test_a_run_that_fails_before_it_writes_leaves_no_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    runs = [
        RunDirectory.create(tmp_path / "runs", "fox"),
        RunDirectory.claim(tmp_path / "a" / "b"),
        RunDirectory.claim(tmp_path / "empty"),
    ]
    for run in runs:
        with pytest.raises(KeyboardInterrupt), run.locked(), run.discarded_on_failure():
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["empty"], "only what was made is removed"


def test_a_run_that_fails_later_leaves_what_it_wrote(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", "fox")
    run.options.touch()
    with pytest.raises(KeyboardInterrupt), run.discarded_on_failure():
        raise KeyboardInterrupt
    assert run.options.exists()
    with run.discarded_on_failure():
        pass
    assert run.path.exists()


def test_what_others_wrote_beside_it_is_left(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", "fox")
    (tmp_path / "runs" / "dog").mkdir()
    with pytest.raises(KeyboardInterrupt), run.discarded_on_failure():
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["dog"]


# --- after a process was killed ---


def test_recovering_removes_what_was_half_written_and_nothing_else(tmp_path: Path) -> None:
    half_written = [
        ".checkpoint-5.0123abcd", ".best.0123abcd", ".checkpoint-5.old",
        ".model.safetensors.0123abcd", ".config.json.0123abcd", ".options.json.0123abcd", ".history.json.0123abcd",
        ".tinygpt2_tokenizer.json.0123abcd", ".losses.png.0123abcd",
    ]  # fmt: skip
    others = [
        "checkpoint-5", "best", "checkpoint-5.damaged", ".notes.0123abcd", ".checkpoint-٣.0123abcd",
        "model.safetensors", ".model.safetensors", ".model.safetensors.0123ABCD", ".modelXsafetensors.0123abcd",
    ]  # fmt: skip
    for name in half_written + others:
        path = tmp_path / name
        if "." in name[1:] and "checkpoint" not in name and "best" not in name:
            path.touch()
            os.utime(path, (0, 0))  # on Windows, the age tells what is in use
        else:
            path.mkdir()
            (path / "file").touch()
    RunDirectory(tmp_path).recover()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_recovering_brings_back_what_was_about_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / ".best.old").mkdir()
    RunDirectory(tmp_path).recover()
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
