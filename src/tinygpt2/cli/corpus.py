"""The corpus of a run: a text, or a file of tokens."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from tinygpt2.cli.common import naming
from tinygpt2.cli.hints import to_paste
from tinygpt2.cli.inputs import (
    STANDARD_INPUT,
    can_be_read_again,
    check_inputs,
    check_not_blank,
    is_blank,
    open_input,
    token_file,
)
from tinygpt2.cli.train_options import TrainOptions
from tinygpt2.data.batches import Batch
from tinygpt2.data.loader import make_dataloader
from tinygpt2.data.token_file import TokenFile
from tinygpt2.text.reading import sample_text
from tinygpt2.text.splitting import split_text
from tinygpt2.text.tokenizers import Tokenizer

PARAGRAPH_CHARACTERS = 60  # at least; a shorter line may be a title
PROMPT_CHARACTERS = 20  # of the text, to continue after each epoch unless --sample-prompt is given


def read_corpus(files: Sequence[str]) -> str | TokenFile:
    """Returns the text of files, or the tokens that 'tinygpt2 tokenize' made from them; each is opened once."""
    if not files:
        return sample_text()
    check_inputs(files)
    texts, names, size = [], [], 0
    for file in files:
        with open_input(file) as reader:
            if reader.holds_tokens and len(files) > 1:
                raise ValueError(
                    f"{file} is a file of tokens and cannot be joined with others; tokenize all texts into one"
                )
            if reader.holds_tokens:
                return token_file(file, reader)
            texts.append("".join(reader))
            names.append(reader.name)
            size += reader.bytes_read
    text = "\n".join(texts)
    check_not_blank(names, size, blank=is_blank(text))
    return text


def run_name(files: Sequence[str]) -> str:
    """Returns the name of the directory of a run on files, unless --out is given."""
    if not files:
        return "sample-text"
    return Path(files[0]).stem if can_be_read_again(files[0]) else "piped-text"


def to_read_again(files: Sequence[str]) -> tuple[str, ...]:
    """Returns the files as a later command names them, from any directory: a pipe as standard input."""
    return tuple(os.path.realpath(file) if can_be_read_again(file) else STANDARD_INPUT for file in files)


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


def prompt_from(corpus: str | TokenFile, tokenizer: Tokenizer) -> str:
    """Returns the beginning of a corpus, as the prompt of samples."""
    if isinstance(corpus, TokenFile):
        return first_words(tokenizer.decode(corpus.tokens[: 10 * PROMPT_CHARACTERS].tolist()))
    return first_words(corpus)


def first_words(text: str) -> str:
    """Returns the first words of the first paragraph, after any title: a title is a poor prompt."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    paragraph = next((line for line in lines if len(line) >= PARAGRAPH_CHARACTERS), lines[0])
    words = paragraph[: PROMPT_CHARACTERS + 1]
    return words.rpartition(" ")[0] or words[:PROMPT_CHARACTERS]


def make_loaders(
    corpus: str | TokenFile, options: TrainOptions, tokenizer: Tokenizer, context_length: int
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Returns the batches to train on and those to validate on."""
    train_part, val_part, encoder = _parts(corpus, options.train_ratio, tokenizer)
    order: dict[str, Any] = {"shuffle": True, "seed": options.seed}
    parts: list[tuple[str, Any, dict[str, Any]]] = [
        ("the training part of the text", train_part, order),
        (f"the validation part of the text (the last {1 - options.train_ratio:.0%}, see --train-ratio)", val_part, {}),
    ]
    loaders = {}
    for name, part, settings in sorted(parts, key=lambda part: len(part[1])):  # what the first error advises then helps
        with naming(name):
            loaders[name] = make_dataloader(
                part, batch_size=options.batch_size, context_length=context_length, tokenizer=encoder, **settings
            )
    train_loader, val_loader = (loaders[name] for name, _, _ in parts)
    return train_loader, val_loader


def _parts(corpus: str | TokenFile, train_ratio: float, tokenizer: Tokenizer) -> tuple[Any, Any, Tokenizer | None]:
    """Returns both parts of a corpus, and the tokenizer that must encode them, if any."""
    if isinstance(corpus, str):
        return *split_text(corpus, train_ratio), tokenizer
    if corpus.n_vocab != tokenizer.n_vocab:
        raise ValueError(
            f"{corpus.path} has tokens from a vocabulary of {corpus.n_vocab:,}, but the model's has "
            f"{tokenizer.n_vocab:,}; make it with the model's tokenizer: tinygpt2 tokenize --model DIR"
        )
    cut = int(len(corpus) * train_ratio)
    return corpus[:cut], corpus[cut:], None
