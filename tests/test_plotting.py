"""Plots show the very numbers they are given, and touch nothing else."""

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from tinygpt2 import (
    GreedySampler,
    MultinomialSampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
    TrainingHistory,
    plot_losses,
    plot_temperatures,
    plot_token_frequencies,
)
from tinygpt2.evaluation.baselines import Baselines

LOGITS = torch.tensor([0.5, 2.0, -1.0, -torch.inf])
WORDS = ["every", "effort", "moves", "you"]


def history_of(train: list[float], val: list[float | None]) -> TrainingHistory:
    n = len(train)
    steps = [10 * i for i in range(n)]
    epochs = [0.25 * i for i in range(n)]
    return TrainingHistory(steps, epochs, [2560 * i for i in range(n)], train, val, [0.0] * n)


def draw(figure: Figure) -> bytes:
    """Renders a figure, where matplotlib first looks at labels, fonts and limits."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(x, y) for x, y in line.get_xydata().tolist()]  # type: ignore[union-attr]


def bars(figure: Figure) -> list[list[Rectangle]]:
    """Returns the bars of each group, from left to right."""
    return [cast("list[Rectangle]", list(container)) for container in figure.axes[0].containers]


def heights(figure: Figure) -> list[list[float]]:
    return [[bar.get_height() for bar in group] for group in bars(figure)]


def legend(owner: Figure | Axes) -> list[str]:
    return [child.get_text() for each in owner.findobj(Legend) for child in each.get_texts()]


def tick_labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


# --- losses ---

LOSSES = st.floats(0, 20)


@given(pairs=st.lists(st.tuples(LOSSES, LOSSES | st.none()), min_size=1, max_size=30))
def test_the_lines_are_the_losses_over_the_epochs(pairs: list[tuple[float, float | None]]) -> None:
    history = history_of([train for train, _ in pairs], [val for _, val in pairs])
    below, above = plot_losses(history).axes
    measured = [(e, loss) for e, loss in zip(history.epochs, history.val_losses, strict=True) if loss is not None]
    assert [points(line) for line in below.lines] == [
        list(zip(history.epochs, history.train_losses, strict=True)),
        *([measured] if measured else []),
    ]
    assert [tokens for tokens, _ in points(above.lines[0])] == history.tokens_seen


@pytest.mark.parametrize(
    ("train", "val", "names"),
    [
        ([10.8], [10.9], ["Training loss", "Validation loss"]),
        ([10.8], [None], ["Training loss"]),
        ([10.8, 7.0, 6.0], [None, 8.0, None], ["Training loss", "Validation loss"]),
        ([3.0] * 50, [None] * 50, ["Training loss"]),
    ],
)
def test_losses_are_drawn_with_their_names_and_units(
    train: list[float], val: list[float | None], names: list[str]
) -> None:
    figure = plot_losses(history_of(train, val))
    assert draw(figure).startswith(b"\x89PNG")
    assert legend(figure) == names
    below, above = figure.axes
    labels = (below.get_xlabel(), below.get_ylabel(), above.get_xlabel())
    assert labels == ("Epochs", "Loss (nats per token)", "Tokens seen")


def test_the_two_horizontal_axes_say_the_same_in_epochs_and_in_tokens() -> None:
    history = history_of([4.0, 3.0, 2.0], [4.0, 3.5, 3.4])
    figure = plot_losses(history)
    draw(figure)
    below, above = figure.axes
    for epoch, tokens in zip(history.epochs, history.tokens_seen, strict=True):
        place = below.transData.transform((epoch, 3.0))[0]
        assert above.transData.transform((tokens, 3.0))[0] == pytest.approx(place)


def with_bits(train: list[float | None], val: list[float | None]) -> TrainingHistory:
    """Returns a history of losses of a nat for each byte of validation data, and of half of one of training data."""
    history = history_of([2 * bits if bits is not None else 1.0 for bits in train], val)
    history.train_bits_per_byte, history.val_bits_per_byte = train, val
    return history


@pytest.mark.parametrize(
    ("train", "val", "scale"),
    [
        ([4.0, 3.0], [4.0, 3.5], 1.0),
        ([4.0, 3.0], [None, None], 0.5),
        ([4.0, 3.0], [4.0, float("inf")], 1.0),
        ([None, 3.0], [None, None], 0.5),
    ],
)
def test_an_axis_on_the_right_shows_bits_per_byte(
    train: list[float | None], val: list[float | None], scale: float
) -> None:
    """Of the validation data, if there are any."""
    figure = plot_losses(with_bits(train, val))
    assert draw(figure).startswith(b"\x89PNG")
    axes = figure.axes[0]
    (right,) = axes.child_axes
    assert right.get_ylabel() == "Bits per byte"
    assert right.get_ylim() == pytest.approx([scale * limit for limit in axes.get_ylim()])


@pytest.mark.parametrize("bits", [[None, None], [0.0, float("nan")], [float("inf")] * 2])
def test_without_known_bits_per_byte_there_is_no_axis_for_them(bits: list[float | None]) -> None:
    history = with_bits([None, None], bits)
    assert not plot_losses(history).axes[0].child_axes


BASELINES = Baselines(
    ngram=2.7, order=4, xz=3.0, untrained=6.0, bytes=900, training_bytes=9000, training_bytes_in_all=9000
)


def with_time(train: list[float | None], val: list[float | None]) -> TrainingHistory:
    history = with_bits(train, val)
    history.seconds = [30.0 * i for i in range(len(train))]
    return history


def test_with_known_seconds_the_lines_are_bits_per_byte_over_minutes() -> None:
    figure = plot_losses(with_time([6.0, 3.0, 2.0], [6.0, None, 2.5]))
    assert draw(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [points(line) for line in axes.lines] == [[(0, 6), (0.5, 3), (1, 2)], [(0, 6), (1, 2.5)]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Minutes (0.5 epochs)", "Bits per byte")
    assert legend(figure) == ["Training loss", "Validation loss"]


def test_baselines_are_lines_and_the_steep_beginning_is_cut_off() -> None:
    figure = with_time([6.0, 3.0, 2.0], [6.0, 3.1, 2.5]).plot(BASELINES)
    assert draw(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [line.get_ydata() for line in axes.lines[2:]] == [[2.7, 2.7], [3.0, 3.0]]
    assert legend(figure)[2:] == ["byte n-gram, 4 bytes of context: 2.70", "xz: 3.00"]
    assert axes.get_ylim()[1] == pytest.approx(3.9)
    assert axes.get_ylim()[0] < 2.0


@pytest.mark.parametrize("last", [5.0, float("inf"), float("nan")])
def test_a_run_that_ends_above_the_baselines_stays_in_view(last: float) -> None:
    figure = plot_losses(with_time([6.0, 4.0], [6.0, last]), BASELINES)
    assert draw(figure).startswith(b"\x89PNG")
    assert figure.axes[0].get_ylim()[1] > (last if last == 5 else 4)


def test_without_known_seconds_or_bits_baselines_are_left_out() -> None:
    history = with_time([6.0, 3.0], [6.0, 3.1])
    history.seconds[1] = None
    without_bits = history_of([6.0, 3.0], [6.0, 3.1])
    without_bits.seconds = [0.0, 30.0]
    for each in (history, without_bits):
        assert legend(plot_losses(each, BASELINES)) == ["Training loss", "Validation loss"]


def test_baselines_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"baselines must be a Baselines, got 2\.7"):
        plot_losses(with_time([6.0], [6.0]), 2.7)  # type: ignore[arg-type]


def test_an_empty_history_is_refused() -> None:
    with pytest.raises(ValueError, match="no evaluations"):
        plot_losses(TrainingHistory())


def test_plotting_leaves_the_history_alone() -> None:
    history = history_of([4.0, 3.0], [None, 3.5])
    plot_losses(history)
    assert history == history_of([4.0, 3.0], [None, 3.5])


# --- temperatures ---


@given(
    temperatures=st.lists(st.floats(0.05, 50), min_size=1, max_size=4, unique_by=lambda t: f"{t:g}"),
    size=st.integers(1, 6),
)
def test_the_bars_are_the_probabilities_at_each_temperature(temperatures: list[float], size: int) -> None:
    logits = torch.arange(size, dtype=torch.float32)
    figure = plot_temperatures(logits, temperatures)
    expected = [torch.softmax(logits.double() / t, dim=-1).tolist() for t in temperatures]
    assert len(heights(figure)) == len(temperatures)
    for got, wanted in zip(heights(figure), expected, strict=True):
        assert got == pytest.approx(wanted)
    assert tick_labels(figure) == [str(i) for i in range(size)]


def test_each_group_of_bars_is_named_and_none_covers_another() -> None:
    figure = plot_temperatures(LOGITS, [1.0, 0.1, 5.0], labels=WORDS)
    assert legend(figure) == ["Temperature 1", "Temperature 0.1", "Temperature 5"]
    assert tick_labels(figure) == WORDS
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for group in bars(figure) for bar in group)
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(edges))
    for token in range(4):
        middle = sum(group[token].get_x() + group[token].get_width() / 2 for group in bars(figure)) / 3
        assert middle == pytest.approx(token)
    assert draw(figure).startswith(b"\x89PNG")


def test_a_single_temperature_is_named_too() -> None:
    texts = [text.get_text() for text in plot_temperatures(LOGITS, [0.25]).findobj(Text)]
    assert "Temperature 0.25" in texts


def test_temperatures_that_print_alike_have_bars_of_their_own() -> None:
    assert len(heights(plot_temperatures(LOGITS, [1.0, 1.0000001]))) == 2


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"each temperature must be .* greater than 0"):
        plot_temperatures(LOGITS, [1.0, temperature])


def test_no_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one temperature"):
        plot_temperatures(LOGITS, [])


# --- frequencies ---


def test_the_tutorials_frequencies() -> None:
    torch.manual_seed(123)
    logits = torch.normal(0, 4, (8,))
    figure = plot_token_frequencies(MultinomialSampler(), logits, generator=torch.Generator().manual_seed(123))
    assert heights(figure) == [[11, 31, 7, 4, 0, 46, 1, 0]]
    assert figure.axes[0].get_ylabel() == "Times drawn, of 100"
    figure = plot_token_frequencies(TopKSampler(3), logits, generator=torch.Generator().manual_seed(123))
    assert heights(figure) == [[13, 34, 0, 0, 0, 53, 0, 0]]


def test_the_title_is_the_sampler_however_long() -> None:
    for sampler in (GreedySampler(), TopKSampler(3, then=TopPSampler(0.9, then=TemperatureSampler(1.4)))):
        figure = plot_token_frequencies(sampler, LOGITS)
        assert figure.axes[0].get_title().split() == repr(sampler).split()
        assert draw(figure).startswith(b"\x89PNG")


@given(draws=st.integers(1, 300), best=st.integers(0, 5))
def test_every_draw_is_counted_once(draws: int, best: int) -> None:
    logits = torch.zeros(6)
    counts = heights(plot_token_frequencies(MultinomialSampler(), logits, draws=draws))
    assert sum(counts[0]) == draws
    logits[best] = 1
    assert heights(plot_token_frequencies(GreedySampler(), logits, draws=draws)) == [
        [draws if i == best else 0 for i in range(6)]
    ]


@pytest.mark.parametrize(("draws", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError)])
def test_a_wrong_number_of_draws_is_refused(draws: Any, error: type[Exception]) -> None:  # noqa: ANN401
    with pytest.raises(error, match="draws"):
        plot_token_frequencies(GreedySampler(), LOGITS, draws=draws)


def no_repetition(
    logits: torch.Tensor, /, *, tokens: torch.Tensor | None = None, generator: torch.Generator | None = None
) -> torch.Tensor:
    assert tokens is not None
    return GreedySampler()(logits.scatter(-1, tokens, -torch.inf), tokens=tokens, generator=generator)


def test_a_sampler_that_looks_at_the_text_is_given_one() -> None:
    figure = plot_token_frequencies(no_repetition, LOGITS, tokens=torch.tensor([1, 2]), draws=7)
    assert heights(figure) == [[7, 0, 0, 0]]
    assert draw(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"ids of one text, \(T,\), got shape \(1, 2\)"):
        plot_token_frequencies(no_repetition, LOGITS, tokens=torch.tensor([[1, 2]]))


def column(logits: torch.Tensor, /, *, generator: torch.Generator | None = None) -> torch.Tensor:
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)


def test_a_sampler_of_logits_alone_may_return_a_column() -> None:
    """As ``torch.multinomial`` does."""
    figure = plot_token_frequencies(column, LOGITS, tokens=torch.tensor([1]), draws=50)  # type: ignore[arg-type]
    assert sum(heights(figure)[0]) == 50


def test_what_a_sampler_returns_is_checked() -> None:
    with pytest.raises(TypeError, match=r"the sampler <lambda> must return .* got torch\.float32 of \(5,\)"):
        plot_token_frequencies(lambda logits, **_: logits.amax(-1), LOGITS, draws=5)
    with pytest.raises(TypeError, match="expected a sampler"):
        plot_token_frequencies(GreedySampler, LOGITS)  # type: ignore[arg-type]


# --- both ---

Plot = Callable[..., Figure]
BARS: list[Plot] = [
    plot_temperatures,
    lambda *args, **options: plot_token_frequencies(GreedySampler(), *args, **options),
]
BOTH = pytest.mark.parametrize("plot", BARS, ids=["temperatures", "frequencies"])


@BOTH
@pytest.mark.parametrize("shape", [(), (0,), (1, 3), (2, 3)])
def test_logits_of_more_than_one_position_are_refused(plot: Plot, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(V,\), got shape"):
        plot(torch.zeros(shape))


@BOTH
@pytest.mark.parametrize("labels", [[], ["a"], ["a"] * 5])
def test_labels_that_are_not_one_a_token_are_refused(plot: Plot, labels: list[str]) -> None:
    with pytest.raises(ValueError, match=f"each of the 4 tokens, got {len(labels)}"):
        plot(LOGITS, labels=labels)


@BOTH
@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (None, TypeError, r"logits must be a tensor, \(V,\), got None \(NoneType\)"),
        ([0.0, 1.0], TypeError, "logits must be a tensor"),
        (torch.tensor([0, 1]), ValueError, r"must be floating-point values, got torch\.int64 on cpu"),
        (torch.zeros(2, device="meta"), ValueError, r"must be floating-point values, got torch\.float32 on meta"),
        (torch.tensor([torch.nan, 1.0]), ValueError, "has NaN"),
        (torch.tensor([torch.inf, 1.0]), ValueError, r"has \+inf"),
        (torch.tensor([-torch.inf, -torch.inf]), ValueError, "has only -inf"),
    ],
)
def test_logits_that_cannot_be_drawn_are_told(plot: Plot, logits: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        plot(logits)


@BOTH
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (3, r"labels must be a sequence of str, got 3 \(int\)"),
        ({"a", "b", "c", "d"}, "labels must be a sequence of str"),
        (b"abcd", "labels must be a sequence of str"),
        (["a", "b", "c", 1], r"each of labels must be a str, got 1 \(int\)"),
    ],
)
def test_labels_that_are_no_texts_are_told(plot: Plot, labels: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=message):
        plot(LOGITS, labels=labels)


@BOTH
def test_labels_may_be_any_sequence(plot: Plot) -> None:
    for labels in (tuple(WORDS), np.array(WORDS), "abcd"):
        assert tick_labels(plot(LOGITS, labels=labels)) == list(labels)


@pytest.mark.parametrize("temperatures", [1.0, None, b"ab", {1.0}, torch.tensor(1.0), ["1.0"], "1"])
def test_temperatures_that_are_no_numbers_are_told(temperatures: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"(temperatures must be a sequence of numbers|each temperature .*), got"):
        plot_temperatures(LOGITS, temperatures)


def test_temperatures_may_be_an_array() -> None:
    assert len(heights(plot_temperatures(LOGITS, np.linspace(0.5, 2, 4)))) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("history", [None, 3, "history.json", {"steps": [1]}])
def test_what_is_no_history_is_told(history: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="history must be a TrainingHistory, got"):
        plot_losses(history)


def test_draws_that_would_fill_the_memory_are_refused() -> None:
    for draws in (1_000_001, 2**31, 10**30):
        with pytest.raises(ValueError, match="draws must be at most 1000000"):
            plot_token_frequencies(GreedySampler(), LOGITS, draws=draws)


def test_wrong_arguments_of_a_sampler_are_told() -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or None"):
        plot_token_frequencies(GreedySampler(), LOGITS, generator=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"tokens must be a tensor, \(T,\), or None, got \[1\]"):
        plot_token_frequencies(GreedySampler(), LOGITS, tokens=[1])  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("token", ["$$", "$a_$", "\\", "_x", "^", "%", "{", "\n", " the", "same"])
def test_any_token_can_be_a_label(plot: Plot, token: str) -> None:
    """matplotlib takes what stands between dollar signs for mathematics; ``$$`` is one of GPT-2's tokens."""
    figure = plot(LOGITS, labels=[token, "same", "$", "é"])
    assert draw(figure).startswith(b"\x89PNG")
    assert len(heights(figure)[0]) == 4


@BOTH
def test_many_tokens_can_be_drawn(plot: Plot) -> None:
    figure = plot(torch.randn(60))
    assert draw(figure).startswith(b"\x89PNG")
    assert tick_labels(figure) == [str(i) for i in range(60)]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_every_precision_are_drawn_and_left_alone(plot: Plot, dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype).requires_grad_()
    before = logits.detach().clone()
    plot(logits)
    assert torch.equal(logits.detach(), before)


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_losses(history_of([3.0], [None])),
        lambda: plot_temperatures(LOGITS),
        lambda: plot_token_frequencies(GreedySampler(), LOGITS),
        lambda: history_of([3.0], [None]).plot(),
    ],
    ids=["losses", "temperatures", "frequencies", "history"],
)
def test_without_matplotlib_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, plot: Callable[[], Figure]
) -> None:
    monkeypatch.delitem(sys.modules, "tinygpt2._internal.figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'tinygpt2\[plot\]'"):
        plot()


# --- notebooks ---

EVERY_PLOT = pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_losses(history_of([3.0], [None])),
        lambda: history_of([3.0, 2.0], [3.5, 3.0]).plot(),
        lambda: with_bits([3.0, 2.0], [3.5, 3.0]).plot(),
        lambda: plot_temperatures(LOGITS),
        lambda: plot_token_frequencies(GreedySampler(), LOGITS),
    ],
    ids=["losses", "history", "bits", "temperatures", "frequencies"],
)


def shown(figure: Figure, *, inline: bool) -> dict[str, Any]:
    """Returns what IPython sends to a notebook for the last value of a cell, by type."""
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    if inline:  # as %matplotlib inline, or the first import of pyplot in a notebook
        pylabtools = pytest.importorskip("IPython.core.pylabtools")
        pylabtools.select_figure_formats(SimpleNamespace(display_formatter=formatter), {"png"})
    content, _ = formatter.format(figure)
    return dict(content)


@EVERY_PLOT
@pytest.mark.parametrize("inline", [False, True])
def test_a_notebook_shows_a_figure_as_a_picture(plot: Callable[[], Figure], *, inline: bool) -> None:
    figure = plot()
    content = shown(figure, inline=inline)
    assert set(content) == {"text/plain", "image/png"}
    if not inline:
        assert content["image/png"] == draw(figure)


@EVERY_PLOT
def test_a_figure_that_was_pickled_is_the_same_picture(plot: Callable[[], Figure]) -> None:
    figure = plot()
    again = pickle.loads(pickle.dumps(figure))  # noqa: S301 - our own
    assert isinstance(again, Figure)
    assert draw(again) == draw(figure)
    assert "image/png" in shown(again, inline=False)


NOTEBOOK = """
import matplotlib.pyplot as plt
from tinygpt2 import TrainingHistory
history = TrainingHistory([0, 1], [0.0, 1.0], [0, 9], [3.0, 2.0], [3.0, 2.0], [0.0, 1.0])
history.plot()
"""


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize("code", [NOTEBOOK, "%matplotlib inline" + NOTEBOOK, NOTEBOOK.replace("\nimport", "\n#")])
def test_a_cell_shows_the_losses_once(code: str) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=100).execute()
    pictures = [output for output in notebook.cells[0].outputs if "image/png" in output.get("data", {})]
    assert [output["output_type"] for output in pictures] == ["execute_result"]


WITHOUT_PYPLOT = """
import sys, torch
from tinygpt2 import *
history = TrainingHistory([0], [0.0], [0], [3.0], [None], [0.0])
logits = torch.arange(3.0)
for figure in (plot_losses(history), plot_temperatures(logits), plot_token_frequencies(GreedySampler(), logits)):
    figure.savefig(sys.stdout.buffer, format="png")
print("matplotlib.pyplot" in sys.modules, file=sys.stderr)
"""


def test_plotting_does_not_import_pyplot() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_PYPLOT], capture_output=True, check=True)
    assert result.stdout.count(b"\x89PNG") == 3
    assert result.stderr.split() == [b"False"]
