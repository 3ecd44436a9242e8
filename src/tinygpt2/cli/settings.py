"""The settings of a generated text: options of the command line, and commands of the prompt to type at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tinygpt2._internal.ranges import Check, Choice, Int, Number
from tinygpt2.cli.options import Escaped, Group, add_option
from tinygpt2.config import TRAINING_RANGES

if TYPE_CHECKING:
    from tinygpt2.generation.samplers.protocol import Sampler
    from tinygpt2.tokenizers.protocol import Tokenizer

Values: TypeAlias = Mapping[str, Any]
"""The value of each setting, by its name."""

OFF = "off"
"""What unsets a setting that has no value by default."""

_PROBABILITY = Number(above_minimum=True, maximum=1)
_ABOVE_0 = Number(above_minimum=True)
_PENALTY = Number(minimum=-2, maximum=2)


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        name: Its name, such as ``top_k``.
        help: What it does.
        check: The range of its values.
        metavar: Placeholder for the value.
        default: The value if none is given; ``None``, or an empty tuple, for none.
        draws: Whether it has no effect where the likeliest token is always chosen.
    """

    name: str
    help: str
    check: Check
    metavar: str
    default: Any = None
    draws: bool = False

    @property
    def words(self) -> str:
        """The name with hyphens, as it is typed."""
        return self.name.replace("_", "-")

    def add(self, group: Group) -> None:
        """Adds the option, which is parsed only if it was given."""
        default = None if self.default in (None, ()) else self.shown(self.default)
        add_option(group, f"--{self.words}", self.help, self.check, metavar=self.metavar, default=default,
                   only_if_given=True, several=self.default == ())  # fmt: skip

    def parse(self, text: str) -> Any:  # noqa: ANN401 - of the range's type
        """Returns the value that was typed at the prompt.

        Raises:
            ValueError: If it is out of range.
        """
        if self.default in (None, ()) and text == OFF:
            return self.default
        value = self.check.parse(text)
        return (value,) if self.default == () else value

    def shown(self, value: Any) -> str:  # noqa: ANN401
        """Returns a value as it would be typed."""
        if value in (None, ()):
            return OFF
        if isinstance(value, tuple):
            return " ".join(each.encode("unicode_escape").decode("ascii") for each in value)
        return f"{value:g}" if isinstance(value, float) else str(value)


LENGTH = (
    Setting("max_new_tokens", "maximum number of tokens to add", Int(minimum=0), "N", 100),
    Setting("stop", r"end before this string, such as '\n'; may be given several times", Escaped(), "STRING", ()),
    Setting("overflow", "past the context length, let the window slide, which is exact, or restart from its newest "
            "half, which is faster", Choice(("slide", "restart")), "slide|restart", "slide"),
)  # fmt: skip
"""The settings of where a text ends."""

REPETITION = (
    Setting("repetition_penalty", "above 1, make the tokens that the text already has less likely", _ABOVE_0, "P", 1.0),
    Setting(
        "presence_penalty", "subtract P from the logits of the tokens that the text already has", _PENALTY, "P", 0.0
    ),
    Setting(
        "frequency_penalty", "subtract P from a token's logit for each time that the text has it", _PENALTY, "P", 0.0
    ),
    Setting("no_repeat_ngram", "never repeat N tokens in a row", Int(), "N"),
    Setting("ban", "never complete this string; may be given several times", Escaped(), "STRING", ()),
)
"""The settings against repetition and unwanted strings, which come before the next ones."""

SAMPLING = (
    Setting("top_k", "keep only the K likeliest tokens; 0 for all", Int(minimum=0), "K", 50, draws=True),
    Setting("top_p", "keep only the likeliest tokens whose total probability reaches P", _PROBABILITY, "P", draws=True),
    Setting("min_p", "keep only tokens at least P times as likely as the top one", _PROBABILITY, "P", draws=True),
    Setting("temperature", "below 1 favours likely tokens, above 1 unlikely ones; 0 is greedy", Number(), "T", 0.8,
            draws=True),
)  # fmt: skip
"""The settings of the draw."""

SEED = Setting(
    "seed", "random seed; with the same options it gives the same texts", TRAINING_RANGES["seed"], "N", draws=True
)

SETTINGS = {setting.name: setting for setting in (*LENGTH, *REPETITION, *SAMPLING, SEED)}
"""All of them, by name."""


def values_of(given: Values) -> dict[str, Any]:
    """Returns the values of all settings, of which some were given."""
    return {name: given.get(name, setting.default) for name, setting in SETTINGS.items()}


def is_greedy(values: Values) -> bool:
    """Returns whether the likeliest token is always chosen."""
    return bool(values["temperature"] == 0)


def default_sampler() -> "Sampler":
    """Returns the sampler of a command line without options."""
    return _drawing(values_of({}))


def sampler_of(values: Values, tokenizer: "Tokenizer") -> "Sampler":
    """Returns the sampler that settings describe: penalties first, then bans, filters, the temperature and the draw."""
    from tinygpt2.generation.samplers.bans import NoRepeatNGramSampler
    from tinygpt2.generation.samplers.penalties import (
        FrequencyPenaltySampler,
        PresencePenaltySampler,
        RepetitionPenaltySampler,
    )
    from tinygpt2.generation.samplers.strings import BannedStringsSampler

    sampler = _drawing(values)
    if values["ban"]:
        sampler = BannedStringsSampler(values["ban"], tokenizer, then=sampler)
    if values["no_repeat_ngram"] is not None:
        sampler = NoRepeatNGramSampler(values["no_repeat_ngram"], then=sampler)
    if values["frequency_penalty"]:
        sampler = FrequencyPenaltySampler(values["frequency_penalty"], then=sampler)
    if values["presence_penalty"]:
        sampler = PresencePenaltySampler(values["presence_penalty"], then=sampler)
    if values["repetition_penalty"] != 1:
        sampler = RepetitionPenaltySampler(values["repetition_penalty"], then=sampler)
    return sampler


def _drawing(values: Values) -> "Sampler":
    from tinygpt2.generation.samplers.draws import GreedySampler, MultinomialSampler
    from tinygpt2.generation.samplers.filters import MinPSampler, TopKSampler, TopPSampler
    from tinygpt2.generation.samplers.temperature import TemperatureSampler

    if is_greedy(values):
        return GreedySampler()
    sampler: Sampler = MultinomialSampler()
    if values["temperature"] != 1:
        sampler = TemperatureSampler(values["temperature"])
    if values["min_p"] is not None:
        sampler = MinPSampler(values["min_p"], then=sampler)
    if values["top_p"] is not None:
        sampler = TopPSampler(values["top_p"], then=sampler)
    return TopKSampler(values["top_k"], then=sampler) if values["top_k"] else sampler
