"""The command ``tinygpt2 generate``."""

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tinygpt2._internal.ranges import Bool, Int, Text
from tinygpt2.cli.options import Commands, Group, add_command, add_device, add_option, argument_type
from tinygpt2.cli.settings import LENGTH, REPETITION, SAMPLING, SEED, SETTINGS, Setting, Values, values_of

if TYPE_CHECKING:
    from tinygpt2.cli.display import Display
    from tinygpt2.cli.writing import Writer


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "generate",
        generate_command,
        "continue a text, or write new ones",
        "A text ends where the model ends it, at --stop, or at --max-new-tokens. One text is printed as it is "
        "generated; several one a line, or separated by lines of --- if one of them has several lines.",
    )
    word = argument_type(Text())
    parser.usage = "%(prog)s [OPTIONS] RUN [PROMPT]"
    run_help = "run directory, or any directory with a GPT-2 in Hugging Face layout"
    parser.add_argument("first", metavar="RUN", nargs="?", type=word, help=run_help)
    prompt_help = (
        "text to continue; - reads it from standard input; '' writes a new text. Without one, a terminal gets a prompt "
        "to type at, and anything else a new text"
    )
    parser.add_argument(
        "prompt", metavar="PROMPT", nargs="*", type=argument_type(Text()), action=_Words, help=prompt_help
    )
    add_option(parser, "--model", "the same as RUN; the other word is then PROMPT", metavar="DIR")
    add_option(parser, "--samples", "number of texts (default: 1)", Int(), metavar="N")
    add_option(parser, "--best-of", "write N texts, and print the --samples likeliest", Int(), metavar="N")
    _add(parser.add_argument_group("length"), LENGTH)
    choice = parser.add_argument_group("choice of each token, in this order")
    _add(choice, [*REPETITION, *SAMPLING])
    add_option(choice, "--greedy", "always choose the likeliest token", Bool())
    _add(choice, [SEED])
    output = parser.add_argument_group("output")
    colours_help = "show how probable the model found each piece: as colours, or in percent without colours"
    add_option(output, "--show-probabilities", colours_help, Bool())
    add_option(output, "--json", "print a JSON object for each text, one a line", Bool())
    add_option(output, "--verbose", "report seed and speed on stderr", Bool())
    add_option(parser, "--int8", "round the weights to 8 bits, as quantize does: faster on a CPU", Bool())
    add_device(parser)


def _add(group: Group, settings: Iterable[Setting]) -> None:
    for setting in settings:
        setting.add(group)


class _Words(argparse.Action):
    """Takes the first word for the model, unless --model named it, and the other for the prompt."""

    @override
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: str | None = None
    ) -> None:
        words = [word for word in (namespace.first, *values) if word is not None]
        if namespace.model is None:
            if not words or not words[0]:
                parser.error("expected RUN, the directory of a model")
            namespace.model = words.pop(0)
        if len(words) > 1:
            parser.error(f"expected one PROMPT, got {len(words)} words: {' '.join(words)}; put it in quotes")
        namespace.prompt = words[0] if words else None


def generate_command(options: argparse.Namespace) -> int:
    """Prints a prompt, and its continuation as it is generated; or several; or opens a prompt to type at."""
    from tinygpt2._internal.devices import choose_device
    from tinygpt2.cli.common import load
    from tinygpt2.cli.display import Display
    from tinygpt2.cli.prompt import Dialogue, converse
    from tinygpt2.cli.writing import Writer, with_seed
    from tinygpt2.model.quantize import quantize

    _check_output(options)
    values = _values(options)
    model, tokenizer = load(options.model, choose_device(options.device), options.program)
    if options.int8 and not model.is_quantized:
        model = quantize(model)
    display = Display(probabilities=options.show_probabilities, verbose=options.verbose)
    several = options.json or options.best_of is not None or options.samples not in (None, 1)
    typed = options.prompt is None and options.samples is None and not several and _at_terminal()
    records = typed or several or options.verbose or options.show_probabilities
    writer = Writer(model, tokenizer, records=records)
    if typed:
        display.explain()
        converse(Dialogue(writer, display, values))
        return 0
    prompt = _standard_input() if options.prompt == "-" else options.prompt or ""
    if several:
        _print_several(writer, display, prompt, with_seed(values), options)
    else:
        text = writer.stream(prompt, with_seed(values))  # which refuses a prompt before it is printed
        display.explain()
        display.stream(text)
    return 0


def _print_several(
    writer: "Writer", display: "Display", prompt: str, values: "Values", options: argparse.Namespace
) -> None:
    """Prints several texts, or the likeliest of them, or what a program may want to know of each."""
    count, batches = options.samples or 1, []
    for batch in writer.together(prompt, values, options.best_of or count):
        batches.append(batch)
        if options.json and options.best_of is None:
            display.records(batch)
    texts = [text for batch in batches for text in batch]
    if options.best_of is not None:
        texts = sorted(texts, key=lambda text: text.mean_log_probability(), reverse=True)[:count]
    if not options.json:
        display.explain()
        display.together(texts)
    elif options.best_of is not None:
        display.records(texts)
    display.report(batches)


def _at_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _values(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that the options give.

    Raises:
        ValueError: If an option of drawing, or several samples, were requested together with ``--greedy``.
    """
    given = {name: value for name, value in vars(options).items() if name in SETTINGS}
    if options.greedy:
        for name in given:
            if SETTINGS[name].draws:
                raise ValueError(
                    f"--greedy always chooses the likeliest token, so --{SETTINGS[name].words} has no effect; "
                    "omit one of the two"
                )
        if (options.samples or 1) > 1 or options.best_of:
            flag = "--best-of" if options.best_of else "--samples"
            raise ValueError(f"--greedy always gives the same text, so it cannot give several; omit --greedy or {flag}")
        given["temperature"] = 0.0
    return values_of(given)


def _check_output(options: argparse.Namespace) -> None:
    if options.best_of and options.best_of < (options.samples or 1):
        raise ValueError(f"--best-of {options.best_of} cannot give --samples {options.samples}; make it larger")
    if options.json and options.show_probabilities:
        raise ValueError("--json has the probabilities; omit --show-probabilities")


def _standard_input() -> str:
    from tinygpt2.text.reading import open_standard_input

    if sys.stdin is None:
        raise ValueError("the prompt is -, standard input, but that is closed")
    with open_standard_input() as reader:
        return "".join(reader)
