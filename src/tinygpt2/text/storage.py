"""Tokenizers on the disk."""

import base64
import json
from pathlib import Path

import tiktoken

from tinygpt2._internal.files import PathLike, write_text
from tinygpt2.text.tokenizers import CharTokenizer, byte_pair_encoding, gpt2_tokenizer

TOKENIZER_FILE = "tinygpt2_tokenizer.json"


def save_tokenizer(tokenizer: "tiktoken.Encoding | CharTokenizer", directory: PathLike) -> None:
    """Writes a tokenizer into a model's directory, in one step, for `load_tokenizer`.

    Args:
        tokenizer: Any ``tiktoken.Encoding`` whose one special token is the end of text, or a `CharTokenizer`.
        directory: Of the model that was trained with it.

    Raises:
        OSError: If it cannot be written; a file that was there is unharmed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_tokenizer(CharTokenizer("abc"), directory)
    ...     load_tokenizer(directory)
    CharTokenizer(characters='abc')
    """
    content: dict[str, object]
    if isinstance(tokenizer, CharTokenizer):
        content = {"type": "characters", "characters": tokenizer.characters}
    elif tokenizer.name == "gpt2" and tokenizer._mergeable_ranks == gpt2_tokenizer()._mergeable_ranks:  # noqa: SLF001
        content = {"type": "gpt2"}
    else:
        tokens = [base64.b64encode(tokenizer.decode_single_token_bytes(i)).decode() for i in range(tokenizer.eot_token)]
        pattern = tokenizer._pat_str  # noqa: SLF001
        content = {"type": "byte pairs", "name": tokenizer.name, "pattern": pattern, "tokens": tokens}
    write_text(Path(directory) / TOKENIZER_FILE, json.dumps(content, ensure_ascii=False) + "\n")


def load_tokenizer(directory: PathLike) -> "tiktoken.Encoding | CharTokenizer":
    """Returns the tokenizer that `save_tokenizer` wrote into a directory; GPT-2's where there is none.

    Raises:
        ValueError: If the file holds anything else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_tokenizer(CharTokenizer("abc"), directory)
    ...     tokenizer = load_tokenizer(directory)
    >>> tokenizer.encode_ordinary("cab")
    [2, 0, 1]
    """
    path = Path(directory) / TOKENIZER_FILE
    if not path.exists():
        return gpt2_tokenizer()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        match content["type"]:
            case "characters":
                return CharTokenizer("".join(content["characters"]))
            case "gpt2":
                return gpt2_tokenizer()
            case "byte pairs":
                tokens = [base64.b64decode(token, validate=True) for token in content["tokens"]]
                if len(set(tokens)) != len(tokens):
                    raise ValueError("a token comes twice")  # noqa: TRY301 - told like the others below
                if not {bytes([byte]) for byte in range(256)} <= set(tokens):
                    raise ValueError("a single byte is missing")  # noqa: TRY301
                return byte_pair_encoding(str(content["name"]), str(content["pattern"]), tokens)
            case other:
                raise ValueError(f"unknown type {other!r}")  # noqa: TRY301
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a tokenizer of tinygpt2: {error!r}") from error
