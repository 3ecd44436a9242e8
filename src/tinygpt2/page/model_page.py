"""A model with its tokenizer as one HTML file, and as the last value of a notebook's cell."""

import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tinygpt2._internal.checks import check_instance, check_path
from tinygpt2._internal.files import write_text
from tinygpt2._internal.texts import check_text
from tinygpt2.kernels.int8 import LEVELS
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.page.bundle import source
from tinygpt2.page.document import document
from tinygpt2.page.tokenizers import page_tokenizer
from tinygpt2.page.weights import page_config, page_shapes, page_weights, plain_weights, used_weights
from tinygpt2.run.report import Report
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.training.history import TrainingHistory

LANGUAGES = ("en", "zh")

_MOST_BYTES = 64 << 20  # of a page: with more, browsers take long to open it
_BYTES_PER_WEIGHT = 1.2  # about: an integer of a byte, compressed, in base64
_SNAPSHOT_LEVELS = 7  # integers on each side of zero: half the bytes, and a few thousandths of a bit per byte
_HEIGHT = 900  # pixels in a notebook


@dataclass(frozen=True)
class ModelPage:
    """An HTML page that runs a model; the last value of a notebook's cell shows it. `show` makes it.

    Attributes:
        html: The page.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     ModelPage("<!doctype html>").save(f"{directory}/page.html")
    """

    html: str = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page as a file, atomically.

        Raises:
            OSError: If it cannot be written; an existing file stays intact.
            TypeError: If it is not a path.
        """
        write_text(check_path("path", path), self.html)

    def _repr_html_(self) -> str:
        """Returns the page in a frame: IPython's protocol, which Jupyter, Colab and VS Code follow."""
        return (
            f'<iframe sandbox="allow-scripts" width="100%" height="{_HEIGHT}" style="border: 0" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a page shows of a model's training.

    Attributes:
        history: The losses.
        report: What was measured at the end.
        snapshots: The weights after some steps, by the step, ascending.
    """

    history: TrainingHistory | None = None
    report: Report | None = None
    snapshots: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)


_NOTHING = Past()


def show(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    *,
    title: str = "GPT-2",
    prompt: str = "",
    history: TrainingHistory | None = None,
    text: str | None = None,
) -> ModelPage:
    """Returns an HTML page in which a model runs: one file that needs nothing installed, and no network.

    It writes texts, shows the probabilities of the next token and what temperature, top-k and top-p make of them, and
    lets its reader look inside: tokens, embeddings, the attention of each head. ``tinygpt2 page RUN`` makes one of a
    run, which has more to show. The page has the weights as integers of a byte, each row with a scale of its own, so
    its logits differ a little from the model's.

    Args:
        model: The model.
        tokenizer: Its tokenizer: characters, or byte pairs that split texts as GPT-2's do.
        title: Its name.
        prompt: The beginning that the page continues when it opens.
        history: The losses of its training, to plot.
        text: The text that it was trained on, in which the page then looks for what the model copies. Whoever has the
            page can read it.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the page cannot run the tokenizer, or would have more than 64 MB, or a text has a lone surrogate.

    >>> from tinygpt2 import CharTokenizer, GPT2Config
    >>> tokenizer = CharTokenizer("abc")
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=4
    ... )
    >>> page = show(GPT2Model(shape), tokenizer, title="abc")
    >>> page.html[:15]
    '<!doctype html>'
    """
    if history is not None:
        check_instance("history", history, TrainingHistory, "a TrainingHistory or None")
    return page_of(model, tokenizer, title=title, prompt=prompt, text=text, past=Past(history=history))


def page_of(
    model: GPT2Model, tokenizer: AnyTokenizer, *, title: str, prompt: str, text: str | None, past: Past = _NOTHING
) -> ModelPage:
    """Returns what `show` does, with all that is known of the training."""
    check_instance("model", model, GPT2Model, "a GPT2Model")
    known = as_tokenizer(tokenizer, ends=True)
    for name, value in (("title", title), ("prompt", prompt), *([] if text is None else [("text", text)])):
        check_text(name, value)
    described = page_tokenizer(known)
    if known.n_vocab > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {known.n_vocab:,} ids, but the model only {model.config.vocab_size:,}; pass the one "
            "that it was trained with"
        )
    weights = plain_weights(model)
    parameters = sum(weight.numel() for weight in weights.values())
    _check_size(_BYTES_PER_WEIGHT * parameters, parameters)
    state = used_weights(weights, known.n_vocab)
    data = {
        "title": title,
        "prompt": prompt,
        "parameters": parameters,
        "tokenizer": described,
        "config": page_config(model.config, known.n_vocab),
        "shapes": page_shapes(state),
        "history": None if past.history is None else _losses(past.history),
        "report": None if past.report is None else _figures(past.report),
        "snapshots": [*past.snapshots],
        "hasText": text is not None,
        "words": {language: json.loads(source(f"words.{language}.json")) for language in LANGUAGES},
    }
    parts = {"data": json.dumps(data).encode(), "weights": page_weights(state, LEVELS)}
    for number, snapshot in enumerate(past.snapshots.values()):
        parts[f"snapshot-{number}"] = page_weights(used_weights(snapshot, known.n_vocab), _SNAPSHOT_LEVELS)
    if text is not None:
        parts["text"] = text.encode()
    page = ModelPage(document(parts))
    _check_size(len(page.html), parameters)
    return page


def _check_size(size: float, parameters: int) -> None:
    """Raises ``ValueError`` if a page is too large."""
    if size > _MOST_BYTES:
        raise ValueError(
            f"the page would have {size / 1e6:,.0f} MB, with the model's {parameters:,} parameters, and at "
            f"most {_MOST_BYTES / 1e6:.0f} MB are made; take a smaller model, with fewer layers or a smaller "
            "vocabulary, or leave out the text and the snapshots"
        )


def _losses(history: TrainingHistory) -> dict[str, Any] | None:
    """Returns the curves of a history: in bits per byte if they are known, else in nats; ``None`` without any."""
    rows = [i for i, loss in enumerate(history.train_losses) if loss == loss]  # noqa: PLR0124 - which NaN is not
    if not rows:
        return None
    in_bits = all(history.train_bits_per_byte[i] is not None for i in rows)
    training = history.train_bits_per_byte if in_bits else history.train_losses
    validation = history.val_bits_per_byte if in_bits else history.val_losses
    known = all(validation[i] is not None for i in rows)
    return {
        "unit": "bits" if in_bits else "nats",
        "steps": [history.steps[i] for i in rows],
        "training": [training[i] for i in rows],
        "validation": [validation[i] for i in rows] if known else None,
    }


def _figures(report: Report) -> dict[str, Any]:
    against = report.baselines
    return {
        "model": report.bits_per_byte,
        "pretrained": report.pretrained,
        "ngram": against.ngram,
        "order": against.order,
        "xz": against.xz,
        "untrained": against.untrained,
        "bytes": against.bytes,
        "copied": report.copied_share,
        "characters": report.generated_characters,
    }
