"""Files that others wrote: only regular ones are read, only so much of them, and only JSON that can be handled."""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt2._internal.files import check_regular, digest_file, open_regular, parse_json, read_bytes, read_json

posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices, and links without a privilege")


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a pipe": getattr(os, "mkfifo", Path.mkdir),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing at all": lambda path: path.symlink_to("/dev/null"),
    "a link to a directory": lambda path: path.symlink_to("."),
    "a link to a pipe": link_to_a_pipe,
}


@posix
@pytest.mark.parametrize("what", IN_THE_WAY)
@pytest.mark.parametrize("links", [True, False])
def test_only_a_regular_file_is_opened_and_nothing_waits(tmp_path: Path, what: str, links: bool) -> None:
    path = tmp_path / "file.json"
    IN_THE_WAY[what](path)
    for read in (
        lambda: check_regular(path, links=links),
        lambda: open_regular(path, links=links),
        lambda: read_bytes(path, limit=10, links=links),
        lambda: read_json(path, limit=10, links=links),
        lambda: digest_file(path),
    ):
        with pytest.raises(ValueError, match=r"^file\.json is not a regular file$"):
            read()


@posix
def test_a_link_is_followed_only_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    link, lost, around = tmp_path / "link", tmp_path / "lost", tmp_path / "around"
    link.symlink_to("file")
    lost.symlink_to("nowhere")
    around.symlink_to("around")
    assert read_json(link, limit=2, links=True) == {}
    for path in (link, lost, around):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_bytes(path, limit=2)
    for path in (lost, around, tmp_path / "missing"):
        with pytest.raises(OSError, match=path.name):
            read_bytes(path, limit=2, links=True)


@posix
def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the opening; it used to wait for somebody to write."""
    path = tmp_path / "file"
    os.mkfifo(path)
    monkeypatch.setattr("tinygpt2._internal.files.check_regular", lambda _, **__: 2)
    before = len(list(Path("/dev/fd").iterdir()))
    for links in (True, False):
        with pytest.raises(ValueError, match=r"^file is not a regular file$"):
            read_bytes(path, limit=2, links=links)
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(ValueError, match=r"^link is not a regular file$"):
        read_bytes(tmp_path / "link", limit=2)
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert read_bytes(path, limit=10) == b"x" * size


@pytest.mark.parametrize("size", [11, 1 << 36])
def test_beyond_the_limit_it_is_not_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=r"^file is larger than 10 bytes$"):
        read_bytes(path, limit=10)


def test_a_file_that_grows_while_it_is_read_is_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As files of Linux in /proc, which have no size."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    monkeypatch.setattr("tinygpt2._internal.files.check_regular", lambda _, **__: 0)
    with pytest.raises(ValueError, match=r"^file is larger than 10 bytes$"):
        read_bytes(path, limit=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1,}', "line 1 column"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' occurs twice"),
        (b'{"x": [{"b": 2, "b": 3}]}', "the key 'b' occurs twice"),
        (b'{"' + b"k" * 5000 + b'": 1, "' + b"k" * 5000 + b'": 1}', "the key 'kkk"),
        (b'{"a": ' + b"9" * 4301 + b"}", "it has an integer of 4,301 digits"),
        (b'{"a": [-' + b"9" * 1_000_000 + b"]}", "it has an integer of 1,000,001 digits"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'{"a": "\n"}', "control character"),
    ],
)
def test_what_is_no_json_is_told_in_one_short_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^file\.json is not JSON: ") as caught:
        read_json(path, limit=1 << 20)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("content", [b"null", b"[]", b"7", b'"a"', b"NaN", b"true"])
def test_json_is_an_object(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is not a JSON object$"):
        parse_json(content, "it")


@pytest.mark.parametrize(("before", "after"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_json_has_a_hundred_levels_and_no_more(before: bytes, after: bytes) -> None:
    """Whatever the caller's stack holds, and whatever is done with it later."""
    each = before.count(b"[") + before.count(b"{")
    levels = 99 // each
    content = b'{"a":' + before * levels + b"1" + after * levels + b"}"
    assert parse_json(content, "it") == json.loads(content)
    for more in (levels + 2, 1000, 100_000):
        for closed in (after * more + b"}", b""):
            with pytest.raises(ValueError, match=r"^it is (nested too deeply|not JSON)"):
                parse_json(b'{"a":' + before * more + b"1" + closed, "it")


def test_wide_is_not_deep() -> None:
    content = b'{"a": [' + b"[]," * 10_000 + b"{}]}"
    assert len(parse_json(content, "it")["a"]) == 10_001


def test_a_digest_is_that_of_a_file_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest_file(path).size == 3
    assert digest_file(path).sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'{"a": 1}')
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(read_json(path, limit=99))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"a": 1}] * 8
