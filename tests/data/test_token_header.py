"""The header of a file of tokens: what describes exactly the ids that follow is read, and nothing else."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt2 import CharTokenizer, TokenFile, tokenize_to_file
from tinygpt2.data.token_header import MOST_SHARDS, Header, Shard, format_header, parse_header

MAGIC = b"tinygpt2 tokens\n"
SHA256 = "0" * 64
HEADER = {
    "dtype": "<u2",
    "tokens": 3,
    "n_vocab": 10,
    "sha256": SHA256,
    "bytes": 7,
    "documents": 1,
    "empty_documents": 0,
    "eot_token": 3,
    "tokenizer_sha256": SHA256,
    "shard": None,
}
SHARD = {"index": 0, "last": True, "shard_bytes": 5, "text_sha256": SHA256}
IDS = np.array([1, 2, 3], "<u2").tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "corpus.tokens"


def write(path: Path, header: object, ids: bytes = IDS) -> None:
    text = (
        header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    )
    path.write_bytes((MAGIC + text).ljust(512) + ids)


def test_a_right_header_is_read(path: Path) -> None:
    write(path, HEADER)
    file = TokenFile(path)
    assert (file.tokens.tolist(), file.n_vocab, file.sha256) == ([1, 2, 3], 10, SHA256)
    assert (file.bytes, file.documents, file.empty_documents) == (7, 1, 0)
    assert (file.eot_token, file.tokenizer_sha256) == (3, SHA256)
    unknown = ["documents", "empty_documents", "eot_token", "tokenizer_sha256"]
    write(path, HEADER | dict.fromkeys(unknown) | {"shard": SHARD})
    assert [getattr(TokenFile(path), name) for name in unknown] == [None] * 4
    write(path, HEADER | {"n_vocab": 65537, "dtype": "<u4"}, np.array([1, 2, 65536], "<u4").tobytes())
    assert TokenFile(path).tokens.tolist() == [1, 2, 65536]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "<u4"}, "dtype should be '<u2', by its n_vocab, but is '<u4'"),
        ({"n_vocab": 65537}, "dtype should be '<u4', by its n_vocab, but is '<u2'"),
        ({"dtype": ">u2"}, "dtype should be '<u2'"),
        ({"dtype": "object"}, "dtype should be '<u2'"),
        ({"dtype": ["<u2"]}, "dtype should be '<u2'"),
        ({"dtype": None}, "dtype should be '<u2'"),
        ({"tokens": 0}, "tokens must be at least 1, got 0"),
        ({"tokens": -3}, "tokens must be at least 1, got -3"),
        ({"tokens": True}, "tokens must be an integer, got True"),
        ({"tokens": 3.0}, "tokens must be an integer, got 3.0"),
        ({"tokens": "3"}, "tokens must be an integer, got '3'"),
        ({"tokens": float("nan")}, "tokens must be an integer, got nan"),
        ({"tokens": 2**48 + 1}, "tokens must be at most 281474976710656"),
        ({"tokens": 10**200}, "got about 10**200"),
        ({"n_vocab": 0}, "n_vocab must be at least 1, got 0"),
        ({"n_vocab": False}, "n_vocab must be an integer, got False"),
        ({"n_vocab": 10.5}, "n_vocab must be an integer, got 10.5"),
        ({"n_vocab": 2**32 + 1}, "n_vocab must be at most 4294967296"),
        ({"sha256": 7}, "sha256 should have 64 hexadecimal digits but is 7"),
        ({"sha256": "0" * 63}, "sha256 should have 64 hexadecimal digits"),
        ({"sha256": "０" * 64}, "sha256 should have 64 hexadecimal digits"),
        ({"sha256": SHA256 + "\n"}, "sha256 should have 64 hexadecimal digits"),
        ({"bytes": -1}, "bytes must be at least 0, got -1"),
        ({"bytes": None}, "bytes must be an integer, got None"),
        ({"documents": "1"}, "documents must be an integer, got '1'"),
        ({"empty_documents": -1}, "empty_documents must be at least 0, got -1"),
        ({"eot_token": 10}, "eot_token must be at most 9, got 10"),
        ({"tokenizer_sha256": "abc"}, "tokenizer_sha256 should have 64 hexadecimal digits but is 'abc'"),
        ({"shard": 1}, "shard should have index, last, shard_bytes, text_sha256 but is 1"),
        ({"shard": {"index": 1}}, "shard should have index, last, shard_bytes, text_sha256 but is {'index': 1}"),
        ({"shard": SHARD | {"index": 100_000}}, "index must be at most 99999"),
        ({"shard": SHARD | {"last": 1}}, "last must be True or False, got 1"),
        ({"shard": SHARD | {"text_sha256": 1}}, "text_sha256 should have 64 hexadecimal digits"),
    ],
)
def test_a_wrong_value_is_told_by_its_key(path: Path, changes: dict[str, Any], message: str) -> None:
    write(path, HEADER | changes)
    with pytest.raises(ValueError, match=r"corpus\.tokens is not a file of tokens \(") as caught:
        TokenFile(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", HEADER)
def test_a_missing_value_is_told_by_its_key(path: Path, name: str) -> None:
    write(path, {key: value for key, value in HEADER.items() if key != name})
    with pytest.raises(ValueError, match=rf"corpus\.tokens is not a file of tokens \(its header lacks {name}, as"):
        TokenFile(path)


def test_the_largest_header_fits() -> None:
    most = 1 << 48
    shard = Shard(MOST_SHARDS - 1, last=False, shard_bytes=most, text_sha256=SHA256)
    header = Header(most, 2**32, SHA256, most, most, most, 2**32 - 1, SHA256, shard)
    content = format_header(header)
    assert len(content) == 512
    assert parse_header(content) == header


@pytest.mark.parametrize(
    "header",
    [b"", b"[]", b"null", b"7", b"{", b"\xff{}", b"[" * 400, json.dumps(HEADER).encode("utf-16"), b"\x00" * 100,
     json.dumps(HEADER)[:-1].encode() + b', "tokens": 3}'],
)  # fmt: skip
def test_a_header_that_is_no_json_object_is_told(path: Path, header: bytes) -> None:
    write(path, header)
    with pytest.raises(ValueError, match=r"corpus\.tokens is not a file of tokens \(its header"):
        TokenFile(path)


@pytest.mark.parametrize("ids", [b"", IDS[:-1], IDS + b"\x00", IDS * 2])
def test_more_or_fewer_bytes_than_it_says_are_told(path: Path, ids: bytes) -> None:
    write(path, HEADER, ids)
    with pytest.raises(ValueError, match=f"is damaged: it should have 518 bytes but has {512 + len(ids)}"):
        TokenFile(path)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices, and links without a privilege")
def test_pipes_and_devices_are_not_waited_for_and_links_are_followed(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"corpus\.tokens"):
        TokenFile(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"corpus\.tokens"):
        TokenFile(path)
    path.unlink()
    write(path.with_name("whole"), HEADER)
    path.symlink_to("whole")
    assert TokenFile(path).tokens.tolist() == [1, 2, 3]


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**30])
def test_the_number_of_threads_has_ends(path: Path, threads: int) -> None:
    with pytest.raises(ValueError, match="threads must be at"):
        tokenize_to_file(["abc"], path, tokenizer=CharTokenizer("abc"), threads=threads)


@pytest.mark.parametrize("threads", [float("nan"), 1.5, "2", True])
def test_the_number_of_threads_is_an_integer(path: Path, threads: Any) -> None:  # noqa: ANN401
    """With NaN no thread was started, and the call waited for one for ever."""
    with pytest.raises(TypeError, match="threads must be an integer"):
        tokenize_to_file(["abc"], path, tokenizer=CharTokenizer("abc"), threads=threads)
    assert len(tokenize_to_file(["abc"], path, tokenizer=CharTokenizer("abc"), threads=np.int64(2))) == 3  # type: ignore[arg-type]
