"""Files are replaced whole or not at all, and text is UTF-8 on every platform."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygpt2._internal.files
from tinygpt2._internal.files import (
    atomic_write,
    hidden_beside,
    is_stream,
    make_directories,
    remove_abandoned,
    sync_directory,
    write_text,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def abandoned(path: Path) -> None:
    """Makes a file as a process left it that was killed long ago: on Windows, without such locks, its age counts."""
    path.write_text("half")
    os.utime(path, (0, 0))


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

    def write(file: BinaryIO) -> None:
        assert Path(file.name).parent == tmp_path, "only within one file system is a move one step"
        file.write(b"half ")
        file.flush()
        assert path.read_text() == "old"
        file.write(b"new")
        assert path.read_text() == "old"

    atomic_write(path, write)
    assert path.read_text() == "half new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", ["old", None])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException, existing: str | None
) -> None:
    path = tmp_path / "file"
    if existing is not None:
        path.write_text(existing)

    def write(file: BinaryIO) -> None:
        file.write(b"half of the new")
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


# --- what is not a plain file ---

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX: links, modes, pipes and devices")


@posix
@pytest.mark.parametrize("links", [["target"], ["other/target"], ["link-2", "target"], ["../up/other/target"]])
@pytest.mark.parametrize("existing", ["old", None])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, links: list[str], existing: str | None) -> None:
    """Weights on another disk, or a figure in a report, used to become a file beside them."""
    directory = tmp_path / "up"
    (directory / "other").mkdir(parents=True)
    for i, leads_to in enumerate(links, 1):
        (directory / f"link-{i}").symlink_to(leads_to)
    target = (directory / "link-1").resolve()
    if existing is not None:
        target.write_text(existing)
    before = names(directory)

    def write(file: BinaryIO) -> None:
        assert Path(file.name).parent.resolve() == target.parent, "the link may lead to another file system"
        file.write(b"new")

    atomic_write(directory / "link-1", write)
    assert target.read_text() == "new"
    assert (directory / "link-1").is_symlink()
    assert set(names(directory)) == {*before, target.relative_to(directory).parts[0]}
    assert not [name for name in names(target.parent) if name.startswith(".")]


@posix
def test_links_in_a_circle_or_to_nowhere_are_told_by_the_name_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("missing/file")
    for name, error in (("a", "symbolic links"), ("c", "missing: No such file or directory")):
        with pytest.raises(OSError, match=error) as caught:
            write_text(tmp_path / name, "text")
        assert caught.value.filename == str(tmp_path / name)
    assert names(tmp_path) == ["a", "b", "c"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """A file of mode 600 used to become one that everybody could read."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    seen: list[int] = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        seen.append(os.fstat(file.fileno()).st_mode & 0o777)

    before = os.umask(0o027)
    try:
        atomic_write(path, write)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == mode
    assert not seen[0] & 0o077 & ~mode, "nobody reads what is being written who may not read the file"
    assert path.read_text() == "new"


@posix
def test_a_file_keeps_its_owner_where_that_is_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
        write_text(path, "new")
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    write_text(path, "newer")
    assert (path.read_text(), names(tmp_path)) == ("newer", ["file"])


@posix
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(tmp_path / "pipe", "through the pipe")
        assert os.read(reader, 100) == b"through the pipe"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["pipe"]


@posix
def test_a_device_stays_one() -> None:
    """As root, ``tinygpt2 tokenize --out`` a device used to put a file in its place."""
    before = Path("/dev/null").stat()
    write_text("/dev/null", "text")
    assert (Path("/dev/null").stat().st_rdev, Path("/dev/null").stat().st_mode) == (before.st_rdev, before.st_mode)
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="space") as caught:
            write_text("/dev/full", "text")
        assert caught.value.filename == "/dev/full"
    assert not list(Path("/dev").glob(".null.*"))


@posix
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no names for open files")
def test_an_open_file_is_written_where_it_stands(tmp_path: Path) -> None:
    """``--out /dev/stdout > file``: opened anew it would begin at 0, and what was printed be overwritten."""
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"before ")
        for name in (f"/dev/fd/{file.fileno()}", tmp_path / "link"):
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
            assert is_stream(name)
            write_text(name, "and ")
        file.write(b"after")
    assert (tmp_path / "file").read_bytes() == b"before and and after"


@posix
def test_a_writer_that_must_seek_refuses_what_cannot(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(OSError, match="not a regular file; expected") as caught:
            atomic_write(path, lambda _: pytest.fail("is not called"), streams=False)
        assert caught.value.filename == str(path)


def test_a_directory_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a directory; expected the name of a file"):
        write_text(tmp_path, "text")
    assert names(tmp_path.parent / tmp_path.name) == []


# --- names ---


@pytest.mark.parametrize("name", ["x" * 255, "x" * 242, "世" * 85])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    """The temporary one is longer."""
    write_text(tmp_path / name, "old")
    write_text(tmp_path / name, "new")
    assert names(tmp_path) == [name]
    (tmp_path / f".{name[:80]}.0123abcd").touch()
    abandoned(hidden_beside(tmp_path / name, "89abcdef"))
    write_text(tmp_path / name, "newer")
    assert names(tmp_path) == sorted([name, f".{name[:80]}.0123abcd"]), "only its own are removed"


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_an_error_names_the_file_and_never_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "replace":
        (tmp_path / "gone").mkdir()
        path = tmp_path / "gone" / "file"

    def write(file: BinaryIO) -> None:
        if step == "write":
            fail()
        if step == "replace":
            Path(file.name).unlink()  # os.replace names both

    if step in ("open", "fsync"):
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="file") as caught:
        atomic_write(path, write)
    assert caught.value.filename == str(path)
    assert caught.value.filename2 is None
    assert ".file." not in str(caught.value)
    assert (f"cannot create a file in {tmp_path}: " in str(caught.value)) == (step == "open")


def test_an_error_of_another_file_names_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "file", lambda _: (tmp_path / "source").read_text())
    assert caught.value.filename in (tmp_path / "source", str(tmp_path / "source"))
    assert names(tmp_path) == []


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=f"cannot create a file in {tmp_path}: Permission denied"):
        write_text(tmp_path / "file", "text")


# --- what killed processes leave ---


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes(tmp_path: Path) -> None:
    for name in (".file.0123abcd", ".file.deadbeef"):
        abandoned(tmp_path / name)
    others = [".file.0123ABCD", ".file.0123abcde", ".other.0123abcd", "file.0123abcd", ".file", ".fileX0123abcd"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".file.00000000").mkdir()
    write_text(tmp_path / "file", "whole")
    assert names(tmp_path) == sorted([*others, ".file.00000000", "file"])


def test_what_another_process_is_writing_is_left(tmp_path: Path) -> None:
    """Two that write one file at the same time: the last to finish has it, and neither fails."""

    def write(file: BinaryIO) -> None:
        file.write(b"outer")
        write_text(tmp_path / "file", "inner")
        assert Path(file.name).exists()

    atomic_write(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "outer"
    assert names(tmp_path) == ["file"]


@posix
def test_a_file_that_is_taken_for_an_abandoned_one_before_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, made = tinygpt2._internal.files._claim, []

    def removed_first(descriptor: int, path: Path) -> bool:
        made.append(path)
        if len(made) == 1:
            remove_abandoned(tmp_path / "file")
        return bool(claim(descriptor, path))

    monkeypatch.setattr(tinygpt2._internal.files, "_claim", removed_first)
    write_text(tmp_path / "file", "whole")
    assert (len(made), names(tmp_path)) == (2, ["file"])


# --- directories ---


@posix
def test_a_new_directory_is_on_the_disk_with_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(tinygpt2._internal.files, "sync_directory", synced.append)
    new = tmp_path / "a" / "b"
    assert make_directories(new) == (new, tmp_path / "a")
    assert synced == [tmp_path / "a", tmp_path]
    assert make_directories(new) == ()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directories(tmp_path / "file")


@posix
def test_a_file_system_that_does_not_sync_directories_is_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> Callable[..., None]:
        def call(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="error"):
        sync_directory(tmp_path)
    monkeypatch.setattr(os, "open", fail(errno.EACCES))
    sync_directory(tmp_path)
