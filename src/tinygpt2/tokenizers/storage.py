"""Tokenizers in the directories of their models: written in tinygpt2's form and in Hugging Face's, and read in both."""

import errno
import json
import os
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import tiktoken

from tinygpt2._internal.checks import check_path
from tinygpt2._internal.directories import rereading
from tinygpt2._internal.files import PathLike, atomic_write, make_directories, read_json, write_chunks
from tinygpt2.config import MODEL_RANGES, GPT2Config
from tinygpt2.formats.hub import named_directory
from tinygpt2.formats.huggingface import CONFIG_FILE, GENERATION_FILE
from tinygpt2.formats.manifest import check_replaceable, verify_listed
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.foreign import AnyTokenizer, HuggingFaceTokenizer, SentencePieceTokenizer, as_tokenizer
from tinygpt2.tokenizers.from_huggingface import SENTENCEPIECE_FILES, THEIR_FILES, read_their_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.tokenizers.to_huggingface import (
    MERGES_FILE,
    SETTINGS_FILE,
    THEIR_FILE,
    VOCABULARY_FILE,
    huggingface_files,
)
from tinygpt2.tokenizers.tokenizer_file import TOKENIZER_FILE, other_content, read_tokenizer_file, tokenizer_content

TOKENIZER_FILES = (
    THEIR_FILE,
    SETTINGS_FILE,
    VOCABULARY_FILE,
    MERGES_FILE,
    *SENTENCEPIECE_FILES,
    "special_tokens_map.json",  # these two are only transformers 4's
    "added_tokens.json",
    GENERATION_FILE,
    TOKENIZER_FILE,
)
"""Every file of a tokenizer, and that of its ids beside a model: a new one replaces all of them, ours last."""

_CONFIG_LIMIT = 1 << 20

_NEVER_READ = ("vocab.txt", "sentencepiece.bpe.model")  # WordPiece, SentencePiece with ids that a class renumbers

_FIX = "save_tokenizer(tokenizer, directory), or model.save_pretrained(directory, tokenizer=tokenizer)"


def save_tokenizer(tokenizer: AnyTokenizer, directory: PathLike) -> None:
    """Writes a tokenizer into a model's directory, for `load_tokenizer` and for transformers' ``AutoTokenizer``.

    ``tinygpt2_tokenizer.json`` has the tokenizer in tinygpt2's form. Beside it are Hugging Face's ``tokenizer.json``,
    ``tokenizer_config.json`` and, for byte pairs, ``vocab.json`` and ``merges.txt``. With these, transformers has the
    same ids for every text, except that special tokens which are written in a text, such as ``<|endoftext|>``, are
    those tokens there, and ordinary characters here. A tokenizer of another library is written in its form. Files of
    an earlier tokenizer are removed; each file is replaced atomically.

    Args:
        tokenizer: A `CharTokenizer`; a ``tiktoken.Encoding`` whose ids run from 0 without a gap, with the end of text
            among its special tokens; or a tokenizer of transformers (a fast one), tokenizers or SentencePiece.
        directory: Directory of the model that was trained with it, or another one; it is created if needed.

    Raises:
        OSError: If it cannot be written.
        TypeError: If it is another kind of tokenizer, or ``directory`` not a path.
        ValueError: If `load_tokenizer` would not return the same tokenizer, or the directory is a checkpoint with one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_tokenizer(CharTokenizer("abc"), directory)
    ...     load_tokenizer(directory)
    CharTokenizer(characters='abc', byte_fallback=False)
    """
    contents = tokenizer_files(as_tokenizer(tokenizer))
    path = check_path("directory", directory)
    check_replaceable(path, TOKENIZER_FILES)
    make_directories(path)
    for name, content in contents.items():
        atomic_write(path / name, partial(write_chunks, chunks=[content]))
    remove_others(path, contents)


def remove_others(directory: Path, names: Iterable[str]) -> None:
    """Removes the files of an earlier tokenizer that the one with files of these names does not have."""
    for name in set(TOKENIZER_FILES) - set(names):
        (directory / name).unlink(missing_ok=True)


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Returns the contents of the files that `save_tokenizer` writes, by their names, ours last.

    Raises:
        TypeError: If it is a kind of tokenizer that cannot be saved.
        ValueError: If it does not read back as the same tokenizer, with the differences.
    """
    if isinstance(tokenizer, tiktoken.Encoding | CharTokenizer):
        return _our_files(tokenizer).copy()
    if isinstance(tokenizer, HuggingFaceTokenizer):
        settings = json.dumps(tokenizer.settings(), indent=2) + "\n"
        files = {THEIR_FILE: tokenizer.inner.to_str().encode(), SETTINGS_FILE: settings.encode()}
        return files | {TOKENIZER_FILE: other_content(THEIR_FILE)}
    if isinstance(tokenizer, SentencePieceTokenizer):
        name = SENTENCEPIECE_FILES[0]
        return {name: tokenizer.inner.serialized_model_proto(), TOKENIZER_FILE: other_content(name)}
    raise TypeError(
        "expected a tiktoken.Encoding, a CharTokenizer, or a tokenizer of transformers (a fast one), tokenizers or "
        f"SentencePiece, got {tokenizer!r} ({type(tokenizer).__name__}); save another kind of tokenizer with its own "
        "library"
    )


@lru_cache(maxsize=2)
def _our_files(tokenizer: tiktoken.Encoding | CharTokenizer) -> dict[str, bytes]:
    tokenizer_content(tokenizer)  # raises if it cannot be saved
    theirs = huggingface_files(tokenizer)
    return theirs | {TOKENIZER_FILE: tokenizer_content(tokenizer, theirs.get(THEIR_FILE))}


def load_tokenizer(path: PathLike, *, revision: str | None = None, token: str | None = None) -> Tokenizer:
    """Returns the tokenizer of a model: in its directory, in a file, or on the Hugging Face Hub.

    It is the one that `save_tokenizer` wrote there, or else the one that Hugging Face's ``tokenizer.json``, or
    ``vocab.json`` and ``merges.txt``, or SentencePiece's ``tokenizer.model`` describes. Byte pairs with GPT-2's pattern
    are read as a ``tiktoken.Encoding``; others need the library that they are from. If there are none, as with some
    copies of OpenAI's own GPT-2, it is GPT-2's tokenizer, provided that ``config.json`` has the size of its vocabulary.
    Files that a ``manifest.json`` lists, as in a checkpoint, must match that, too.

    Args:
        path: Directory of a model, a checkpoint or a run, or one of these files; or the name of a model on the Hub,
            such as ``"openai-community/gpt2"``, as in `GPT2Model.from_pretrained`.
        revision: Branch, tag or commit on the Hub.
        token: Token for the Hub.

    Raises:
        FileNotFoundError: If there is no such directory or file, or the Hub has no such model, or it is not in the
            cache and cannot be downloaded.
        ImportError: If the tokenizer, or a name on the Hub, needs a library that is not installed.
        TypeError: If it is not a path.
        ValueError: If the directory does not identify a tokenizer, its files contradict each other, or one is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_tokenizer(CharTokenizer("abc"), directory)
    ...     tokenizer = load_tokenizer(directory)
    >>> tokenizer.encode_ordinary("cab")
    [2, 0, 1]
    """
    check_path("path", path)
    path = named_directory(path, revision=revision, token=token)
    if path.is_file():
        return read_tokenizer_file(path) if path.name == TOKENIZER_FILE else read_their_tokenizer(path)
    return _load(path)


@rereading
def _load(directory: Path) -> Tokenizer:
    if not directory.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such model directory", str(directory))
    verify_listed(directory, (CONFIG_FILE, *TOKENIZER_FILES))
    size = _vocabulary_size(directory)
    names = (TOKENIZER_FILE, *THEIR_FILES)
    name = next((name for name in names if os.path.lexists(directory / name)), None)  # also a link that leads nowhere
    if name is None:
        return _gpt2_if_alone(directory, size)
    tokenizer = (read_tokenizer_file if name == TOKENIZER_FILE else read_their_tokenizer)(directory / name)
    if size is not None and tokenizer.n_vocab > size:
        raise ValueError(
            f"{directory / name} has {tokenizer.n_vocab:,} tokens, but the model's {CONFIG_FILE} has a vocab_size of "
            f"{size:,}: it is not this model's tokenizer. Save the one that the model was trained with: {_FIX}"
        )
    return tokenizer


def _vocabulary_size(directory: Path) -> int | None:
    """Returns the size of a model's vocabulary; ``None`` if there is no model."""
    path = directory / CONFIG_FILE
    if not path.exists():
        return None
    try:
        size = read_json(path, limit=_CONFIG_LIMIT, links=True).get("vocab_size", GPT2Config.vocab_size)
        return int(MODEL_RANGES["vocab_size"].check("vocab_size", size))
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _gpt2_if_alone(directory: Path, size: int | None) -> tiktoken.Encoding:
    """Returns GPT-2's tokenizer if a directory without one shows that it is that of its model."""
    expected = gpt2_tokenizer().n_vocab
    if size != expected:
        model = (
            f"has no {CONFIG_FILE}" if size is None else f"has a vocab_size of {size:,} where GPT-2's is {expected:,}"
        )
        raise ValueError(
            f"{directory} has no {TOKENIZER_FILE}, and {model}, so its tokenizer is unknown; save the one that the "
            f"model was trained with: {_FIX}"
        )
    for name in _NEVER_READ:
        if (directory / name).exists():
            raise ValueError(
                f"{directory} has no {TOKENIZER_FILE} or {THEIR_FILE}, and {name} does not say how it is used; load it "
                f"with the library that it belongs to, and save that tokenizer: {_FIX}"
            )
    return gpt2_tokenizer()
