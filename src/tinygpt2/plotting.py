"""Plots of losses, temperatures and a sampler's draws.

They need matplotlib: ``pip install 'tinygpt2[plot]'``. Each function returns a new ``Figure``, to save with ``savefig``
or to leave as the last value of a notebook's cell, which shows it. None changes pyplot's state.
"""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from operator import mul
from textwrap import fill
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_instance, check_int, check_number
from tinygpt2.evaluation.baselines import Baselines
from tinygpt2.generation.samplers.checks import check_generator, checked_ids, checked_logits
from tinygpt2.generation.samplers.protocol import Sampler, with_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tinygpt2.training.history import TrainingHistory

_ROOM = 1.3  # the height of a plot with baselines, relative to the highest of what should be in it

_MOST_DRAWS = 1_000_000  # they are drawn at once, and a plot shows no more


def plot_losses(history: "TrainingHistory", baselines: Baselines | None = None) -> "Figure":
    """Returns a plot of training and validation loss.

    If the history has bits per byte and seconds, it shows bits per byte over minutes, and baselines as lines. The
    steep beginning is then cut off above them.

    Otherwise, it shows nats per token over epochs, with the tokens seen on a second axis above. If the history has bits
    per byte, an axis on the right shows them. Its scale is that of the validation data (of the training data, if there
    are no others), since a token of another text stands for slightly more or fewer bytes.

    Args:
        history: A history with at least one evaluation.
        baselines: What simple models of the same text need, to compare with.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument is of the wrong type.
        ValueError: If the history is empty.

    >>> from tinygpt2 import TrainingHistory
    >>> history = TrainingHistory(
    ...     steps=[0, 10], epochs=[0.0, 1.0], tokens_seen=[0, 2560],
    ...     train_losses=[10.8, 7.1], val_losses=[10.8, 7.4],
    ...     learning_rates=[0.0, 4e-4],
    ... )
    >>> plot_losses(history).axes[0].get_xlabel()
    'Epochs'
    """
    if not hasattr(history, "steps"):  # its class imports this module
        raise TypeError(f"history must be a TrainingHistory, got {history!r:.50} ({type(history).__name__})")
    if baselines is not None:
        check_instance("baselines", baselines, Baselines, "a Baselines")
    if not history.steps:
        raise ValueError("the history has no evaluations to plot; train first")
    if None in history.seconds or None in history.train_bits_per_byte:
        return _plot_nats(history)
    return _plot_bits(history, baselines)


def _plot_bits(history: "TrainingHistory", baselines: Baselines | None) -> "Figure":
    """Returns a plot of bits per byte over minutes."""
    figure, axes = _new_figure(width=6.4, height=4.2)
    minutes = [seconds / 60 for seconds in history.seconds if seconds is not None]
    _plot_curves(axes, minutes, history.train_bits_per_byte, history.val_bits_per_byte)
    if baselines is not None:
        _plot_baselines(axes, history, baselines)
    axes.set_xlabel(f"Minutes ({history.epochs[-1]:.3g} epochs)")
    axes.set_ylabel("Bits per byte")
    axes.legend()
    return figure


def _plot_baselines(axes: "Axes", history: "TrainingHistory", baselines: Baselines) -> None:
    """Draws lines for the baselines that are near the end of the curves, and cuts off what is far above them."""
    ends = [bits[-1] for bits in (history.train_bits_per_byte, history.val_bits_per_byte) if bits[-1] is not None]
    near = _ROOM * max(filter(math.isfinite, (baselines.ngram, baselines.xz, *ends)))
    for style, (name, bits) in zip((":", "-.", (0, (1, 4))), baselines.rows().items(), strict=False):
        if bits <= near:
            axes.axhline(bits, color="0.4", linestyle=style, linewidth=1.2, label=f"{name}: {bits:.2f}")
    if axes.get_ylim()[1] > near:
        axes.set_ylim(top=near)


def _plot_nats(history: "TrainingHistory") -> "Figure":
    """Returns a plot of nats per token over epochs."""
    figure, axes = _new_figure(width=6.4, height=4.2)
    _plot_curves(axes, history.epochs, history.train_losses, history.val_losses)
    if history.epochs[-1] >= 3:
        axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("Epochs")
    axes.set_ylabel("Loss (nats per token)")
    axes.legend()
    above = axes.twiny()
    above.plot(history.tokens_seen, history.train_losses, alpha=0)  # invisible: sets the scale of the axis
    above.set_xlabel("Tokens seen")
    above.xaxis.set_major_formatter("{x:,.0f}")
    if (scale := _bits_per_byte_of_a_nat(history)) is not None:
        both_ways = (partial(mul, scale), partial(mul, 1 / scale))  # no lambdas: a figure can be pickled
        right = axes.secondary_yaxis("right", functions=both_ways)  # pyright: ignore[reportArgumentType]
        right.set_ylabel("Bits per byte")
    return figure


def _plot_curves(
    axes: "Axes", places: Sequence[float], training: Sequence[float | None], validation: Sequence[float | None]
) -> None:
    """Draws the losses on training data, and those on validation data that are known."""
    marker = "o" if len(places) < 20 else None
    for name, losses, style in (("Training loss", training, "-"), ("Validation loss", validation, "--")):
        measured = [(place, loss) for place, loss in zip(places, losses, strict=True) if loss is not None]
        if measured:
            axes.plot(*zip(*measured, strict=True), label=name, linestyle=style, marker=marker, markersize=3)
    axes.grid(alpha=0.3)


def _bits_per_byte_of_a_nat(history: "TrainingHistory") -> float | None:
    """Returns the bits per byte that a loss of one nat per token is, of the data measured last; ``None`` if unknown."""
    validated = any(bits is not None for bits in history.val_bits_per_byte)
    losses: Sequence[float | None] = history.val_losses if validated else history.train_losses
    all_bits = history.val_bits_per_byte if validated else history.train_bits_per_byte
    scales = [bits / loss for loss, bits in zip(losses, all_bits, strict=True) if loss and bits]
    return next((scale for scale in reversed(scales) if math.isfinite(scale)), None)


def plot_temperatures(
    logits: Tensor,
    temperatures: Sequence[float] = (1.0, 0.1, 5.0),
    *,
    labels: Sequence[str] | None = None,
) -> "Figure":
    """Returns a bar chart of the probability of each token at several temperatures.

    Args:
        logits: (V,), floating point, for a vocabulary small enough to draw.
        temperatures: Each greater than 0.
        labels: The V tokens as text; their ids by default.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument is of the wrong type.
        ValueError: If the shapes do not match, a temperature is not greater than 0, or the logits have NaN, +inf or
            only -inf.

    >>> import torch
    >>> logits = torch.tensor([0.0, 2.0, 1.0])
    >>> figure = plot_temperatures(logits, labels=["every", "effort", "moves"])
    >>> figure.axes[0].get_ylabel()
    'Probability'
    """
    labels = _token_labels(logits, labels)
    scales = [
        check_number("each temperature", temperature, above_minimum=True)
        for temperature in _listed("temperatures", temperatures, "a sequence of numbers")
    ]
    if not scales:
        raise ValueError("expected at least one temperature, got none")
    row = checked_logits(logits.detach().cpu().unsqueeze(0))[0].double()
    bars = [(f"Temperature {t:g}", torch.softmax(row / t, dim=-1).tolist()) for t in scales]
    figure = _plot_bars(bars, labels, ylabel="Probability")
    figure.legend(loc="outside upper center", ncols=len(bars), frameon=False)
    return figure


def plot_token_frequencies(
    sampler: Sampler,
    logits: Tensor,
    *,
    tokens: Tensor | None = None,
    draws: int = 100,
    labels: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> "Figure":
    """Returns a bar chart of how often a sampler draws each token.

    Args:
        sampler: The sampler.
        logits: (V,), floating point, for a vocabulary small enough to draw.
        tokens: (T,) int64, the text so far, for a sampler that uses it.
        draws: Number of draws, at most a million.
        labels: The V tokens as text; their ids by default.
        generator: Source of the sampler's randomness; PyTorch's global one if ``None``.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument is of the wrong type, or the sampler returns something other than integers.
        ValueError: If the shapes do not match, a number is out of range, the logits have NaN, +inf or only -inf, or
            the sampler does not return one id of the vocabulary per row.

    >>> import torch
    >>> from tinygpt2 import GreedySampler
    >>> logits = torch.tensor([0.0, 2.0, 1.0])
    >>> figure = plot_token_frequencies(GreedySampler(), logits)
    >>> [int(bar.get_height()) for bar in figure.axes[0].patches]
    [0, 100, 0]
    """
    labels = _token_labels(logits, labels)
    draws = check_int("draws", draws, maximum=_MOST_DRAWS)
    check_generator(generator, logits.device)
    rows = logits.expand(draws, -1)
    before = None if tokens is None else _text_so_far(tokens).expand(draws, -1)
    ids = checked_ids(sampler, with_tokens(sampler)(rows, tokens=before, generator=generator), rows)  # (draws,)
    counts = torch.bincount(ids, minlength=len(labels)).tolist()
    figure = _plot_bars([("", counts)], labels, ylabel=f"Times drawn, of {draws}")
    figure.axes[0].set_title(fill(repr(sampler), width=60), fontsize="medium")
    return figure


def _plot_bars(groups: Sequence[tuple[str, list[float]]], labels: Sequence[str], *, ylabel: str) -> "Figure":
    """Returns a figure with one bar per label for each of the named groups, side by side."""
    figure, axes = _new_figure(width=max(5.0, 0.5 * len(labels) + 1.5), height=3.8)
    width = 0.8 / len(groups)
    for i, (name, heights) in enumerate(groups):
        offset = (i - (len(groups) - 1) / 2) * width
        axes.bar([place + offset for place in range(len(labels))], heights, width, label=name)
    crowded = len(labels) * max(map(len, labels)) > 60  # characters that fit side by side
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
        parse_math=False,  # a dollar sign is an ordinary token
    )
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def _token_labels(logits: Tensor, labels: Sequence[str] | None) -> Sequence[str]:
    check_instance("logits", logits, Tensor, "a tensor, (V,)")
    if logits.dim() != 1 or not len(logits):
        raise ValueError(f"expected the logits of one position, (V,), got shape {tuple(logits.shape)}")
    if not logits.is_floating_point() or logits.is_meta:
        raise ValueError(f"logits must be floating-point values, got {logits.dtype} on {logits.device}")
    if labels is None:
        return [str(i) for i in range(len(logits))]
    labels = _listed("labels", labels, "a sequence of str")
    if len(labels) != len(logits):
        raise ValueError(f"expected a label for each of the {len(logits)} tokens, got {len(labels)}")
    for label in labels:
        check_instance("each of labels", label, str, "a str")
    return labels


def _listed(name: str, values: object, description: str) -> list[Any]:
    """Returns the items of a sequence; a set has no order, and bytes are numbers."""
    try:
        if isinstance(values, bytes | AbstractSet):
            raise TypeError  # noqa: TRY301 - to be described below
        return list(values)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        raise TypeError(f"{name} must be {description}, got {values!r:.50} ({type(values).__name__})") from None


def _text_so_far(tokens: Tensor) -> Tensor:
    check_instance("tokens", tokens, Tensor, "a tensor, (T,), or None")
    if tokens.dim() != 1:
        raise ValueError(f"expected tokens as the ids of one text, (T,), got shape {tuple(tokens.shape)}")
    return tokens


def _new_figure(*, width: float, height: float) -> "tuple[Figure, Axes]":
    """Returns an empty figure, of this size in inches, and its axes."""
    try:
        from tinygpt2._internal.figures import NotebookFigure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'tinygpt2[plot]'") from error
    figure = NotebookFigure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()
