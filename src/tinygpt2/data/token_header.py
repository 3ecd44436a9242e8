"""The header of a file of tokens."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from tinygpt2._internal.checks import check_bool, check_int, shown
from tinygpt2._internal.files import parse_json
from tinygpt2.data.encoding import ids_dtype
from tinygpt2.text.recognition import TOKENS_MAGIC

HEADER_BYTES = 512  # the magic, then JSON, then spaces
_MOST = 1 << 48  # tokens of two bytes or more each, or bytes of text: all that a computer can address
_MOST_IDS = 1 << 32
MOST_SHARDS = 100_000  # with names of five digits, in whose order they are


@dataclass(frozen=True)
class Shard:
    """The place of a file in a corpus of several.

    Attributes:
        index: 0 for the first one.
        last: Whether the text ends with it.
        shard_bytes: After how many bytes of text a file ends.
        text_sha256: Hash of all text from the beginning of the corpus to the end of this file.
    """

    index: int
    last: bool
    shard_bytes: int
    text_sha256: str


@dataclass(frozen=True)
class Header:
    """What is known about the ids that follow it.

    Attributes:
        tokens: Their number.
        n_vocab: Size of the vocabulary.
        sha256: Their hash.
        bytes: Size of their text in UTF-8, without the ends of documents.
        documents: Number of documents, ``None`` if it is one text.
        empty_documents: Number of those that were left out, likewise.
        eot_token: Id of the end-of-text token, ``None`` if the tokenizer has none.
        tokenizer_sha256: Identity of the tokenizer, ``None`` if it is not known.
        shard: Its place in a corpus of several files, ``None`` if it is all of it.
    """

    tokens: int
    n_vocab: int
    sha256: str
    bytes: int
    documents: int | None
    empty_documents: int | None
    eot_token: int | None
    tokenizer_sha256: str | None
    shard: Shard | None = None


def format_header(header: Header) -> bytes:
    """Returns a header as it is in a file."""
    content = {"dtype": ids_dtype(header.n_vocab).str, **asdict(header)}
    return (TOKENS_MAGIC + json.dumps(content, separators=(",", ":")).encode()).ljust(HEADER_BYTES)


def parse_header(header: bytes) -> Header:
    """Returns the header that a file begins with.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If it is no header, lacks a value, or one is out of range.
    """
    if not header.startswith(TOKENS_MAGIC):
        raise ValueError("it does not begin like one")
    content = parse_json(header[len(TOKENS_MAGIC) :], "its header")
    names = ["dtype", *Header.__dataclass_fields__]
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"its header lacks {', '.join(missing)}, as that of another version of tinygpt2 may")
    n_vocab = check_int("n_vocab", content["n_vocab"], maximum=_MOST_IDS)
    if content["dtype"] != (expected := ids_dtype(n_vocab).str):
        raise ValueError(f"dtype should be {expected!r}, by its n_vocab, but is {shown(content['dtype'])}")
    return Header(
        tokens=check_int("tokens", content["tokens"], maximum=_MOST),
        n_vocab=n_vocab,
        sha256=_check_hash("sha256", content["sha256"]),
        bytes=check_int("bytes", content["bytes"], minimum=0, maximum=_MOST),
        documents=_optional_int("documents", content["documents"], _MOST),
        empty_documents=_optional_int("empty_documents", content["empty_documents"], _MOST),
        eot_token=_optional_int("eot_token", content["eot_token"], n_vocab - 1),
        tokenizer_sha256=_optional_hash("tokenizer_sha256", content["tokenizer_sha256"]),
        shard=_parse_shard(content["shard"]),
    )


def _parse_shard(content: Any) -> Shard | None:  # noqa: ANN401 - of JSON
    if content is None:
        return None
    if not isinstance(content, dict) or set(content) != set(Shard.__dataclass_fields__):
        raise ValueError(f"shard should have {', '.join(Shard.__dataclass_fields__)} but is {shown(content)}")
    return Shard(
        index=check_int("index", content["index"], minimum=0, maximum=MOST_SHARDS - 1),
        last=check_bool("last", content["last"]),
        shard_bytes=check_int("shard_bytes", content["shard_bytes"], maximum=_MOST),
        text_sha256=_check_hash("text_sha256", content["text_sha256"]),
    )


def _optional_int(name: str, value: object, maximum: int) -> int | None:
    return None if value is None else check_int(name, value, minimum=0, maximum=maximum)


def _optional_hash(name: str, value: object) -> str | None:
    return None if value is None else _check_hash(name, value)


def _check_hash(name: str, value: object) -> str:
    if not (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        raise ValueError(f"{name} should have 64 hexadecimal digits but is {shown(value)}")
    return value
