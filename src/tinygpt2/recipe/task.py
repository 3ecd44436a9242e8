"""What a recipe is chosen for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tinygpt2._internal.ranges import Check, Int, Text
from tinygpt2.config import MODEL_RANGES, TRAINING_RANGES, GPT2Config
from tinygpt2.data.noise import NOISE_RANGES
from tinygpt2.recipe import rules
from tinygpt2.recipe.statistics import TextStatistics
from tinygpt2.recipe.students import STUDENT_STEPS, TEACHERS
from tinygpt2.tokenizers.choice import suit_characters

SHAPE = ("n_layer", "n_head", "n_embd")
GIVEN: Mapping[str, Check] = MappingProxyType(
    {
        **MODEL_RANGES,
        **TRAINING_RANGES,
        "tokenizer": Text(),
        "batch_size": Int(),
        "bpe_dropout": NOISE_RANGES["bpe_dropout"],
        "token_noise": NOISE_RANGES["token_noise"],
        "noise_epochs": NOISE_RANGES["epochs"],
        "teachers": TEACHERS,
        "student_steps": STUDENT_STEPS,
    }
)
"""The ranges of what can be chosen by hand."""


@dataclass(frozen=True)
class Task:
    """What a recipe is chosen for.

    Attributes:
        text: Statistics of the text to train on.
        minutes: What the run may take.
        spent: Seconds of them that have passed.
        speed: Speed of training in FLOP/s, of all processes together.
        memory: Bytes that are free.
        given: What was chosen by hand.
        pretrained: Shape of the model to fine-tune; ``None`` for a new one.
        usual: Whether the minutes are those that suit the size of the text.
        processes: Number of processes.
    """

    text: TextStatistics
    minutes: float
    spent: float
    speed: float
    memory: int
    given: Mapping[str, Any]
    pretrained: GPT2Config | None
    usual: bool
    processes: int = 1

    @property
    def seconds(self) -> float:
        """Seconds for the training itself."""
        whole = 60 * self.minutes
        return max(whole * rules.LEAST_SHARE, (whole - self.spent) * rules.TRAINING_SHARE)

    @property
    def tokens(self) -> int:
        """Tokens that a pass over the text reads, as far as is known."""
        if self.text.tokens is not None:
            return self.text.tokens
        per_byte = 1.0 if self.tokenizer == "char" else rules.TOKENS_PER_BYTE
        return max(1, round(per_byte * self.text.bytes))

    @property
    def tokenizer(self) -> str:
        """Kind of the tokenizer; a size alone is that of byte pairs, as `choose_tokenizer` takes it."""
        spelt = "vocab_size" not in self.given and suit_characters(self.text.characters, names=self.text.names)
        return str(self.given.get("tokenizer", "char" if spelt else "bpe"))

    @property
    def many_names(self) -> bool:
        """Whether a new model reads names in characters, and so many that it hardly memorises one."""
        if not (self.text.names and self.tokenizer == "char") or self.pretrained:
            return False
        weights = rules.weights_for_time(self.seconds, self.speed, names=True)
        return weights <= rules.WEIGHTS_PER_CHARACTER * self.tokens

    @property
    def most_passes(self) -> int:
        """Passes over the text, beyond which more do not help."""
        return rules.FINE_TUNING_PASSES if self.pretrained else rules.MOST_PASSES


@dataclass(frozen=True)
class Steps:
    """The steps of a run.

    Attributes:
        optimizer: Its optimizer.
        rows: Windows of a micro-batch.
        accumulate: Micro-batches of a step.
        of_pass: Steps of a pass over the text.
        count: Steps of the run, or of each teacher.
        seconds: What they are expected to take.
        length: ``epochs`` or ``max_steps``.
        teachers: Models to train first, of whom the one to keep is the student.
        student: Steps of the student.
    """

    optimizer: str
    rows: int
    accumulate: int
    of_pass: int
    count: int
    seconds: float
    length: Mapping[str, int]
    teachers: int = 0
    student: int = 0

    @property
    def passes(self) -> float:
        """Passes over the text."""
        return self.count / self.of_pass
