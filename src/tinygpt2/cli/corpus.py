"""The corpus of a run: what it trains on, and what it validates on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from tinygpt2.cli.common import naming
from tinygpt2.cli.hints import to_paste
from tinygpt2.cli.inputs import Part, is_of_tokens, is_stream, read_files
from tinygpt2.cli.train_options import TrainOptions
from tinygpt2.data.batches import Batch
from tinygpt2.data.loader import make_dataloader
from tinygpt2.data.token_file import TokenFile
from tinygpt2.text.reading import sample_text
from tinygpt2.text.sources import STANDARD_INPUT, shared_files, without_endings
from tinygpt2.text.splitting import split_documents, split_text, without_duplicates
from tinygpt2.tokenizers.protocol import Tokenizer

PARAGRAPH_CHARACTERS = 60  # at least; a shorter line may be a title
_PIECE = 1 << 20  # tokens to look for an end in at a time
PROMPT_CHARACTERS = 20  # of the text, to continue after each epoch unless --sample-prompt is given


@dataclass(frozen=True)
class Corpus:
    """What a run trains on and what it validates on: texts, documents, or tokens.

    Attributes:
        train: The part to train on.
        val: The part to validate on.
        notes: What to say about them.
    """

    train: Part
    val: Part
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, Part]:
        """Both parts."""
        return self.train, self.val

    @property
    def size(self) -> str:
        """How large both parts are together."""
        return _size_of(self.train, self.val)


def read_corpus(options: TrainOptions) -> Corpus:
    """Returns the corpus that options name; each file is opened once."""
    if not options.files:
        return _split(sample_text(), [], options)
    read = read_files(options.files, options.field, options.separator)
    if not options.val:
        return _split(read.part, read.notes, options)
    with naming("--val"):
        val = read_files(options.val, options.field, options.separator)
    if same := shared_files(read.files, val.files):
        raise ValueError(
            f"{same[0] or 'standard input'} is both among the files to train on and among those of --val; leave it out "
            "of one of the two"
        )
    part, held_out, duplicates = read.part, val.part, 0
    if not (is_of_tokens(part) or is_of_tokens(held_out)):
        split = without_duplicates(_documents(part), _documents(held_out))
        held_out = held_out if isinstance(held_out, str) else split.val
        duplicates = split.duplicates
    return Corpus(part, held_out, (_said(part, held_out, duplicates), *read.notes, *val.notes))


def _documents(part: str | list[str]) -> list[str]:
    return [part] if isinstance(part, str) else part


def _split(part: Part, notes: Sequence[str], options: TrainOptions) -> Corpus:
    """Returns both parts of a text, of documents, or of tokens."""
    ratio, duplicates = options.train_ratio, 0
    train: Part
    val: Part
    if isinstance(part, str):
        train, val = split_text(part, ratio)
    elif is_of_tokens(part):
        train, val = _split_tokens(part, ratio)
    else:
        train, val, duplicates = split_documents(part, ratio, seed=options.seed)
    return Corpus(train, val, (_said(train, val, duplicates), *notes))


def _said(train: Part, val: Part, duplicates: int) -> str:
    """Returns how large both parts are."""
    said = f"{_size_of(train)} to train on, {_size_of(val)} to validate on"
    if not duplicates:
        return said
    return f"{said}; {duplicates:,} that are also among those to train on, word for word, were left out"


def _split_tokens(files: list[TokenFile], ratio: float) -> tuple[list[TokenFile], list[TokenFile]]:
    """Returns both parts of files of tokens, cut at the end of a document if they have ends."""
    ends = list(accumulate(map(len, files)))
    cut = int(ends[-1] * ratio)
    number = next(i for i, end in enumerate(ends) if cut < end)
    file, place = files[number], cut - (ends[number] - len(files[number]))
    if file.documents is not None:
        place = _end_of_document(file, place)
    train = [*files[:number], file[:place]]
    val = [file[place:], *files[number + 1 :]]
    return [part for part in train if len(part)], [part for part in val if len(part)]


def _end_of_document(file: TokenFile, place: int) -> int:
    """Returns the place of the first end of a document from a place on, or else the place."""
    for begin in range(place, len(file), _PIECE):
        ends = np.flatnonzero(file.tokens[begin : begin + _PIECE] == file.eot_token)
        if ends.size:
            return begin + int(ends[0]) + 1
    return place


def _size_of(*parts: Part) -> str:
    part = parts[0]
    unit = "characters" if isinstance(part, str) else "tokens" if is_of_tokens(part) else "documents"
    count = sum(sum(map(len, part)) if is_of_tokens(part) else len(part) for part in parts)
    return f"{count:,} {unit}"


def run_name(files: Sequence[str]) -> str:
    """Returns the name of the directory of a run on files, unless --out is given."""
    if not files:
        return "sample-text"
    if to_read_again(files[:1]) == (STANDARD_INPUT,):
        return "piped-text"
    path = Path(files[0]).absolute()
    return path.parent.name if set(path.name) & set("*?[") else without_endings(path.name)


def to_read_again(files: Sequence[str]) -> tuple[str, ...]:
    """Returns the files as a later command names them, from any directory: a pipe as standard input."""
    return tuple(STANDARD_INPUT if is_stream(file) else os.path.realpath(file) for file in files)


def once_only(files: Sequence[str]) -> str | None:
    """Returns what to say about a run whose text came through a pipe, ``None`` about any other run."""
    if STANDARD_INPUT not in to_read_again(files):
        return None
    return "its text came through a pipe, which cannot be read again: to resume, pass the same text, as a file or -"


def check_saved_files(files: Sequence[str], directory: Path, words: Sequence[str]) -> None:
    """Raises ``ValueError`` if the text of a run to resume, with these words, came through a pipe."""
    if STANDARD_INPUT in files:
        raise ValueError(
            f"the run in {directory} got its text through a pipe, which cannot be read again; pass the same text, as "
            f"a file or with - for standard input: {to_paste([*words, 'FILE'])}"
        )


def prompt_from(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """Returns the beginning of a text, as the prompt of samples; of documents nothing: samples are new documents."""
    part = corpus.train
    if isinstance(part, str):
        return first_words(part)
    if not is_of_tokens(part) or part[0].eot_token in part[0].tokens[-1:]:
        return ""
    return first_words(tokenizer.decode(part[0].tokens[: 10 * PROMPT_CHARACTERS].tolist()))


def first_words(text: str) -> str:
    """Returns the first words of the first paragraph, after any title: a title is a poor prompt."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    paragraph = next((line for line in lines if len(line) >= PARAGRAPH_CHARACTERS), lines[0])
    words = paragraph[: PROMPT_CHARACTERS + 1]
    return words.rpartition(" ")[0] or words[:PROMPT_CHARACTERS]


def make_loaders(
    corpus: Corpus, options: TrainOptions, tokenizer: Tokenizer, context_length: int
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Returns the batches to train on and those to validate on."""
    order: dict[str, Any] = {"shuffle": True, "seed": options.seed, "noise": options.noise}
    held_out = "--val" if options.val else f"{1 - options.train_ratio:.0%} of it all, see --train-ratio"
    parts: list[tuple[str, Any, dict[str, Any]]] = [
        ("the part to train on", corpus.train, order),
        (f"the part to validate on ({held_out})", corpus.val, {}),
    ]
    loaders = {}
    for name, part, settings in sorted(parts, key=lambda part: _length(part[1])):  # the first error's advice then helps
        with naming(name):
            loaders[name] = make_dataloader(
                part, batch_size=options.batch_size or 1, context_length=context_length, tokenizer=tokenizer, **settings
            )
    train_loader, val_loader = (loaders[name] for name, _, _ in parts)
    return train_loader, val_loader


def _length(part: Part) -> int:
    return len(part) if isinstance(part, str) else sum(map(len, part))
