"""Files are replaced whole or not at all, and text is UTF-8 on every platform."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2._internal.files import atomic_write, write_text


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_written_as_utf8_with_its_newlines_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    write_text(path, text)
    assert path.read_bytes() == text.encode("utf-8")


def test_newlines_are_not_translated(tmp_path: Path) -> None:
    write_text(tmp_path / "text.txt", "a\r\nb\nc\rd\u2028")
    assert (tmp_path / "text.txt").read_bytes() == b"a\r\nb\nc\rd\xe2\x80\xa8"


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    write_text(str(tmp_path / "世界.txt"), "new")
    assert names(tmp_path) == ["世界.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary: Path) -> None:
        assert temporary.parent == tmp_path, "only within one file system is a move one step"
        temporary.write_text("half")
        assert path.read_text() == "old"
        temporary.write_text("new")
        assert path.read_text() == "old"

    atomic_write(path, write)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", ["old", None])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException, existing: str | None
) -> None:
    path = tmp_path / "file"
    if existing is not None:
        path.write_text(existing)

    def write(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, write)
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == (
        {} if existing is None else {"file": existing}
    )


def test_text_that_is_not_unicode_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "whole " * 10_000 + "\ud800")
    assert (path.read_text(), names(tmp_path)) == ("old", ["file"])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_system_call_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*{"fsync": (os, "fsync", fail), "replace": (Path, "replace", fail)}[step])
    with pytest.raises(OSError, match="Input/output error"):
        write_text(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("old", ["file"])


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    seen: list[tuple[str, int]] = []
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        seen.append((path.read_text(), os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    write_text(path, "newer")
    assert seen[0] == ("old", len("newer"))


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_a_file_gets_the_permissions_of_any_other_and_the_umask_stays(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        write_text(tmp_path / "ours", "text")
    finally:
        after = os.umask(before)
    assert after == umask
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        write_text(tmp_path / "missing" / "file", "text")
    assert names(tmp_path) == []


def test_a_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(OSError, match="runs"):
        write_text(tmp_path / "runs", "text")
    assert names(tmp_path) == ["runs"]
