"""The command ``tinygpt2 page``."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt2._internal.ranges import Bool
from tinygpt2.cli.options import Commands, add_command, add_option

if TYPE_CHECKING:
    from tinygpt2.page.model_page import ModelPage
    from tinygpt2.run.directory import RunDirectory
    from tinygpt2.tokenizers.protocol import Tokenizer


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "page",
        page_command,
        "write a web page in which a run's model works",
        "One HTML file, which runs the model in any current browser, offline and with nothing to install: it writes, "
        "shows the probabilities of the next token and what happens inside, and moves through the training if the run "
        "kept snapshots.",
    )
    parser.add_argument("directory", metavar="RUN", help="run directory")
    add_option(parser, "--out", "file to write (default: RUN/page.html)", metavar="FILE")
    add_option(
        parser,
        "--include-text",
        "put the text that the run was trained on into the page, which then marks what the model copies from it; "
        "whoever has the page can read the text",
        Bool(),
    )


def page_command(options: argparse.Namespace) -> int:
    """Writes a page with a run's model."""
    from tinygpt2._internal.console import write_line
    from tinygpt2._internal.files import is_stream
    from tinygpt2.cli.common import read_model
    from tinygpt2.run.directory import RunDirectory

    run = RunDirectory(Path(options.directory))

    def read(place: Path) -> "ModelPage":
        return _page(run, place, include_text=options.include_text)

    page = read_model(options.directory, read, options.program)
    path = run.page if options.out is None else Path(options.out)
    page.save(path)
    with_text = "with the text that it was trained on" if options.include_text else "without the text of its training"
    write_line(f"a page of {len(page.html) / 1e6:.1f} MB, {with_text}; open it in a browser")
    if not is_stream(path):  # which may be where this would go, too
        print(path)
    return 0


def _page(run: "RunDirectory", place: Path, *, include_text: bool) -> "ModelPage":
    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.page.model_page import page_of
    from tinygpt2.page.past import past_of
    from tinygpt2.tokenizers.storage import load_tokenizer

    model, tokenizer = GPT2Model.from_pretrained(place), load_tokenizer(place)
    return page_of(
        model,
        tokenizer,
        title=run.path.resolve().name,
        prompt=_prompt(run, tokenizer),
        text=_training_text(run) if include_text else None,
        past=past_of(run),
    )


def _prompt(run: "RunDirectory", tokenizer: "Tokenizer") -> str:
    """Returns what a run's samples continue, if it is known and can be encoded."""
    from tinygpt2.cli.train_options import saved_options

    with suppress(OSError, ValueError):
        prompt = saved_options(run).get("sample_prompt") or ""
        tokenizer.encode_ordinary(prompt)
        return str(prompt)
    return ""


def _training_text(run: "RunDirectory") -> str:
    """Returns the text that a run was trained on, read again."""
    from tinygpt2.cli.corpus import read_corpus
    from tinygpt2.cli.inputs import is_of_tokens
    from tinygpt2.cli.train_options import TrainOptions, saved_options
    from tinygpt2.text.sources import STANDARD_INPUT

    saved = TrainOptions(**saved_options(run))
    if STANDARD_INPUT in saved.files:
        raise ValueError(
            f"the run in {run.path} got its text through a pipe, which cannot be read again; omit --include-text"
        )
    part = read_corpus(saved).train
    if is_of_tokens(part):
        raise ValueError(f"the run in {run.path} was trained on files of tokens, not of text; omit --include-text")
    return part if isinstance(part, str) else "\n\n".join(part)
