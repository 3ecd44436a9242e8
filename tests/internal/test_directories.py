"""Directories are replaced whole, whatever is in their place, and who reads beside that sees one of the two."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tinygpt2._internal.directories
from tinygpt2._internal.directories import (
    InUseError,
    recover_directories,
    remove_directory,
    rereading,
    write_directory,
)

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX: links and modes")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def writer(text: str) -> Callable[[Path], object]:
    def write(draft: Path) -> None:
        for name in ("a", "b"):
            (draft / name).write_text(text)

    return write


@rereading
def read(directory: Path) -> str:
    """Reads two files that must be of one directory."""
    first = (directory / "a").read_text()
    second = (directory / "b").read_text()
    if first != second:
        raise ValueError(f"{first} and {second}")
    return first


# --- writing ---


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "a").write_text("old")


def make_file(path: Path) -> None:
    path.write_text("old")


def make_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    (path.parent / "elsewhere" / "a").write_text("theirs")
    path.symlink_to("elsewhere")


def make_broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


IN_THE_WAY = [make_directory, make_file] + ([make_link, make_broken_link] if os.name == "posix" else [])


@pytest.mark.parametrize("at", ["best", ".best.old"])
@pytest.mark.parametrize("make", IN_THE_WAY)
def test_whatever_is_in_the_way_is_replaced_again_and_again(
    tmp_path: Path, make: Callable[[Path], None], at: str
) -> None:
    """A link in the place of ``best``, or anything left in that of the old one, used to block every later save."""
    if at == ".best.old":
        write_directory(tmp_path / "best", writer("zero"))
    make(tmp_path / at)
    for text in ("one", "two", "three"):
        write_directory(tmp_path / "best", writer(text))
        assert read(tmp_path / "best") == text
        assert names(tmp_path) == ["best", *(["elsewhere"] if make is make_link else [])]
    if make is make_link:
        assert (tmp_path / "elsewhere" / "a").read_text() == "theirs", "only the link was ours"


@pytest.mark.parametrize("existing", [True, False])
def test_a_writer_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path, existing: bool) -> None:
    if existing:
        write_directory(tmp_path / "best", writer("old"))

    def fail(draft: Path) -> None:
        writer("half")(draft)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        write_directory(tmp_path / "best", fail)
    assert names(tmp_path) == ["best"] * existing
    assert not existing or read(tmp_path / "best") == "old"


def test_one_that_cannot_be_moved_stays_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, while another program has a file in it open."""
    write_directory(tmp_path / "best", writer("old"))
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "best":
            raise PermissionError(13, "The process cannot access the file", str(path), str(target))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(InUseError, match="cannot be replaced: The process cannot access") as caught:
            write_directory(tmp_path / "best", writer("new"))
        assert caught.value.filename == str(tmp_path / "best")
        assert (names(tmp_path), read(tmp_path / "best")) == (["best"], "old")
    write_directory(tmp_path / "best", writer("newer"))
    assert (names(tmp_path), read(tmp_path / "best")) == (["best"], "newer")


def test_an_old_one_that_cannot_be_removed_is_told_and_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For instance since it was made read-only, or a file in it is open on Windows."""
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with caplog.at_level(logging.WARNING):
        for text in ("one", "two", "three"):
            write_directory(tmp_path / "best", writer(text))
            assert read(tmp_path / "best") == text
    assert caplog.text.count("is not used any more; remove it by hand") == 2
    monkeypatch.undo()
    recover_directories(tmp_path, "best")
    assert names(tmp_path) == ["best"]


def test_removing_what_is_not_there_or_may_not_be_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remove_directory(tmp_path / "none")
    assert not caplog.text

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "one").mkdir()
    monkeypatch.setattr(Path, "rename", refuse)
    remove_directory(tmp_path / "one")
    assert f"cannot remove {tmp_path / 'one'}: Permission denied" in caplog.text
    assert names(tmp_path) == ["one"]


@pytest.mark.parametrize("make", IN_THE_WAY)
def test_recovering_removes_what_is_left_whatever_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_directory(tmp_path / "best", writer("whole"))
    make(tmp_path / ".best.old")
    make_directory(tmp_path / ".best.0123abcd")
    recover_directories(tmp_path, "best")
    assert names(tmp_path) == ["best", *(["elsewhere"] if make is make_link else [])]
    assert read(tmp_path / "best") == "whole"


# --- reading beside a writer ---


class Exchanging:
    """A reader of two files that lets another process act between them: before each read, one of the given acts."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)
        self.calls = 0

    def __call__(self, directory: Path) -> str:
        self.calls += 1
        first = (directory / "a").read_text()
        if self.acts:
            self.acts.pop(0)()
        second = (directory / "b").read_text()
        if first != second:
            raise ValueError(f"{first} and {second}")
        return first


def test_files_of_two_directories_are_read_again(tmp_path: Path) -> None:
    """1 of 147 reads of ``best`` beside a run that was training called it damaged."""
    path = tmp_path / "best"
    write_directory(path, writer("0"))
    reader = Exchanging(*(lambda i=i: write_directory(path, writer(str(i))) for i in (1, 2, 3)))
    assert rereading(reader.__call__)(path) == "3"
    assert reader.calls == 4


def test_a_directory_that_has_another_name_for_an_instant_is_found(tmp_path: Path) -> None:
    path, old = tmp_path / "best", tmp_path / ".best.old"
    write_directory(path, writer("old"))
    path.rename(old)
    assert read(path) == "old"

    def finish() -> None:
        write_directory(path, writer("new"))
        shutil.rmtree(old, ignore_errors=True)

    assert rereading(Exchanging(finish).__call__)(path) == "new"


def test_what_is_damaged_is_read_once_and_what_is_missing_is_told(tmp_path: Path) -> None:
    write_directory(tmp_path / "best", writer("same"))
    (tmp_path / "best" / "b").write_text("other")
    reader = Exchanging()
    with pytest.raises(ValueError, match="same and other"):
        rereading(reader.__call__)(tmp_path / "best")
    assert reader.calls == 1
    with pytest.raises(FileNotFoundError, match="none"):
        rereading(reader.__call__)(tmp_path / "none")


def test_reading_again_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinygpt2._internal.directories, "_READS", 5)
    path = tmp_path / "best"
    write_directory(path, writer("first"))
    reader = Exchanging(*(lambda i=i: write_directory(path, writer(str(i))) for i in range(9)))
    with pytest.raises(ValueError, match="3 and 4"):
        rereading(reader.__call__)(path)
    assert reader.calls == 5


def test_the_directory_may_be_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_directory(tmp_path / "best", writer("here"))
    monkeypatch.chdir(tmp_path / "best")
    assert read(Path()) == "here"
    assert read(Path("../best")) == "here"
