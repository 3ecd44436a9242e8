"""The command ``tinygpt2 tokenize``."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Never

from tqdm import tqdm

from tinygpt2.cli.options import Commands, add_command, add_option
from tinygpt2.data.token_file import tokenize_to_file
from tinygpt2.text.reading import Utf8Reader
from tinygpt2.text.storage import load_tokenizer
from tinygpt2.text.tokenizers import gpt2_tokenizer


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "tokenize",
        tokenize_command,
        "turn text files of any size into a file of tokens",
        "It uses every core and little memory. 'tinygpt2 train' reads the file in place of the texts, without loading "
        "it into memory.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="UTF-8 text files; several are joined")
    add_option(parser, "--out", "file to write, for instance corpus.tokens", metavar="FILE", required=True)
    add_option(parser, "--model", "use the tokenizer of this model (default: GPT-2's)", metavar="DIR")


def tokenize_command(options: argparse.Namespace) -> int:
    """Writes the tokens of text files into one file."""
    model = options.model
    tokenizer = gpt2_tokenizer() if model is None else load_tokenizer(Path(model))
    sizes = [Path(file).stat().st_size for file in options.files]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=None, leave=False) as bar:
        tokens = tokenize_to_file(_text_of(options.files, bar), options.out, tokenizer=tokenizer)
    print(f"{tokens.path}: {len(tokens):,} tokens, {sum(sizes) / len(tokens):.2f} bytes of text per token")
    return 0


def _text_of(files: list[str], bar: "tqdm[Never]") -> Iterator[str]:
    """Yields the text of files, with a line break between them, and advances a progress bar."""
    for i, file in enumerate(files):
        if i:
            yield "\n"
        for piece in Utf8Reader(file):
            yield piece
            bar.update(len(piece.encode()))
