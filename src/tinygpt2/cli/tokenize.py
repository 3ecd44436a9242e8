"""The command ``tinygpt2 tokenize``."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Never

from tinygpt2.cli.options import FILES_HELP, Commands, add_command, add_option

if TYPE_CHECKING:
    from tqdm import tqdm


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
    parser.add_argument("files", metavar="FILE", nargs="+", help=f"{FILES_HELP}; several are joined")
    add_option(parser, "--out", "file to write, for instance corpus.tokens", metavar="FILE", required=True)
    add_option(parser, "--model", "use the tokenizer of this model (default: GPT-2's)", metavar="DIR")


def tokenize_command(options: argparse.Namespace) -> int:
    """Writes the tokens of text files into one file."""
    from tqdm import tqdm

    from tinygpt2.cli.inputs import check_inputs
    from tinygpt2.cli.runs import suggesting_runs
    from tinygpt2.data.tokenizing import tokenize_to_file
    from tinygpt2.text.storage import load_tokenizer
    from tinygpt2.text.tokenizers import gpt2_tokenizer

    model = options.model
    with suggesting_runs(Path(model or ".")):
        tokenizer = gpt2_tokenizer() if model is None else load_tokenizer(Path(model))
    sizes = check_inputs(options.files)
    total = None if None in sizes else sum(filter(None, sizes))
    with tqdm(total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        text = _Text(options.files, bar)
        tokens = tokenize_to_file(text, options.out, tokenizer=tokenizer)
    print(f"{tokens.path}: {len(tokens):,} tokens, {text.bytes_read / len(tokens):.2f} bytes of text per token")
    return 0


class _Text:
    """The text of files, with a line break between them, which advances a progress bar as it is read.

    Attributes:
        bytes_read: Number of bytes read.
    """

    def __init__(self, files: list[str], bar: "tqdm[Never]") -> None:
        self.files, self.bar = files, bar
        self.bytes_read = 0

    def __iter__(self) -> Iterator[str]:
        from tinygpt2.cli.inputs import check_not_blank, is_blank, open_input

        names, blank = [], True
        for i, file in enumerate(self.files):
            if i:
                yield "\n"
            before = self.bytes_read
            with open_input(file) as reader:
                names.append(reader.name)
                for piece in reader:
                    yield piece
                    blank = blank and is_blank(piece)
                    self.bytes_read = before + reader.bytes_read
                    self.bar.update(self.bytes_read - self.bar.n)
        check_not_blank(names, self.bytes_read, blank=blank)
