"""What was measured at the end of a run, as its directory keeps it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from tinygpt2._internal.checks import shown
from tinygpt2._internal.files import read_json, write_text
from tinygpt2._internal.ranges import Check, Int, Number, Optional
from tinygpt2.evaluation.baselines import Baselines

_LIMIT = 1 << 20  # bytes of the file

_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "step": Int(minimum=0),
        "bits_per_byte": Number(),
        "standard_error": Optional(Number()),
        "pretrained": Optional(Number()),
        "held_out_bytes": Int(),
        "copied_share": Optional(Number(maximum=1)),
        "generated_characters": Int(minimum=0),
    }
)


@dataclass(frozen=True)
class Report:
    """What was measured at the end of a run.

    Attributes:
        step: Step of the last evaluation.
        bits_per_byte: Loss of the model on held-out text; the bytes measured are those of the baselines.
        standard_error: Of that figure; ``None`` for a text too short to tell.
        pretrained: Loss of the model before fine-tuning, on the same bytes; ``None`` of a new model, or if the one that
            was fine-tuned is no longer there.
        held_out_bytes: Bytes of held-out text that there are, measured or not.
        copied_share: Share of generated text that is copied from the training text; ``None`` if none was long enough.
        generated_characters: Characters generated.
        baselines: What simple models need for the same bytes.
    """

    step: int
    bits_per_byte: float
    standard_error: float | None
    pretrained: float | None
    held_out_bytes: int
    copied_share: float | None
    generated_characters: int
    baselines: Baselines

    def rows(self) -> dict[str, float]:
        """Returns the bits per byte of the model, of that before fine-tuning, and of the baselines, by their names."""
        before = {} if self.pretrained is None else {"before fine-tuning": self.pretrained}
        return {"this model": self.bits_per_byte} | before | self.baselines.rows()

    def save(self, path: Path) -> None:
        """Writes the report as JSON, atomically."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a report that ``save`` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds anything else.
        """
        try:
            return cls._from_dict(read_json(path, limit=_LIMIT))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a report: {error}") from error

    @classmethod
    def _from_dict(cls, content: Mapping[str, Any]) -> Self:
        if content.keys() != {*_RANGES, "baselines"}:
            raise ValueError(f"expected an object with {', '.join(_RANGES)}, baselines, got {shown(content)}")
        values = {name: check.check(name, content[name]) for name, check in _RANGES.items()}
        return cls(**values, baselines=Baselines.from_dict(content["baselines"]))
