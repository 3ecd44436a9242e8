"""The command ``tinygpt2 tokenize``."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from tinygpt2._internal.ranges import Int, Text
from tinygpt2.cli.options import FILES_HELP, Commands, add_command, add_documents, add_option

if TYPE_CHECKING:
    from tqdm import tqdm

    from tinygpt2.data.token_file import TokenFile
    from tinygpt2.text.documents import DocumentReader


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "tokenize",
        tokenize_command,
        "turn texts of any size into a file of tokens",
        "It uses every core and little memory. 'tinygpt2 train' reads the file in place of the texts, without loading "
        "it into memory. Of several documents, each is followed by an end of text.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help=f"{FILES_HELP}. Each is a document; one text goes on")
    add_option(parser, "--out", "file to write, for instance corpus.tokens", metavar="FILE", required=True)
    shard_help = (
        "write several files into the directory --out, each of about N bytes of text; the same command again continues "
        "after an interruption"
    )
    add_option(parser, "--shard-bytes", shard_help, Int(), metavar="N")
    share_help = "write the K-th of every N of these files only, for instance on the K-th of N machines"
    add_option(parser, "--shard", share_help, Text(), metavar="K/N")
    tokenizer_help = "tokenizer in a run directory, another directory or a tokenizer.json (default: GPT-2's)"
    parser.add_argument("--tokenizer", "--model", metavar="PATH", default=None, help=tokenizer_help)
    add_documents(parser)


def tokenize_command(options: argparse.Namespace) -> int:
    """Writes the tokens of texts into one file."""
    from tqdm import tqdm

    from tinygpt2._internal.console import write_line
    from tinygpt2.cli.inputs import notes_on
    from tinygpt2.cli.runs import suggesting_runs
    from tinygpt2.data.shards import tokenize_to_shards
    from tinygpt2.data.tokenizing import tokenize_to_file
    from tinygpt2.text.documents import DocumentReader
    from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
    from tinygpt2.tokenizers.storage import load_tokenizer

    path = options.tokenizer
    with suggesting_runs(Path(path or ".")):
        tokenizer = gpt2_tokenizer() if path is None else load_tokenizer(Path(path))
    reader = DocumentReader(options.files, field=options.field, separator=options.separator)
    with tqdm(total=reader.total_bytes, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        texts = _advancing(bar, reader)
        kind: dict[str, Any] = {"tokenizer": tokenizer, "documents": not reader.single_text}
        share = _share(options.shard)
        if options.shard_bytes is None:
            if share:
                raise ValueError("--shard needs --shard-bytes N, the size of the files; it is the same on all machines")
            files = [tokenize_to_file(texts, options.out, **kind)]
        else:
            files = tokenize_to_shards(texts, options.out, shard_bytes=options.shard_bytes, share=share, **kind)
    for note in notes_on(reader):
        write_line(note)
    print(f"{options.out}: {_counted(files)}")
    return 0


def _share(words: str | None) -> tuple[int, int] | None:
    """Returns which share of the files was asked for."""
    if words is None:
        return None
    number, _, of = words.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--shard must be K/N, the K-th of N, for instance 3/16, got {words!r}")
    return int(number), int(of)


def _counted(files: "Sequence[TokenFile]") -> str:
    tokens, size = sum(map(len, files)), sum(file.bytes or 0 for file in files)
    several = "" if len(files) == 1 else f"{len(files):,} files, "
    ended = [file.documents for file in files if file.documents is not None]
    of = f" of {sum(ended):,} documents" if ended else ""
    return f"{several}{tokens:,} tokens{of}, {size / tokens:.2f} bytes of text per token"


def _advancing(bar: "tqdm[Never]", reader: "DocumentReader") -> Iterator[str]:
    """Yields documents, or the pieces of a text, and advances a progress bar as they are read."""
    texts: Iterable[str] = reader.pieces() if reader.single_text else reader
    for text in texts:
        yield text
        bar.update(reader.bytes_read - bar.n)
