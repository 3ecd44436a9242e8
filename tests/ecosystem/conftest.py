"""What the tests of other programs share: a model and its directory as written, and differences."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from run_pages import DOCS, python_blocks
from tinygpt2 import GPT2Config, GPT2Model, sample_text, train_tokenizer
from tinygpt2 import Tokenizer as TinyTokenizer

PAGE = DOCS / "ecosystem.md"
DIFFERENCES: dict[str, float] = {}


def _selected(config: pytest.Config) -> bool:
    return "ecosystem" in config.option.markexpr.replace("not ecosystem", "")


def pytest_configure(config: pytest.Config) -> None:
    """Lets other programs warn as they like, and keeps them from the network and the home directory."""
    if _selected(config):
        config.addinivalue_line("filterwarnings", "default")
        os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
        os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tinygpt2-")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leaves these files alone unless they are asked for: importing all the clients takes long."""
    return None if _selected(config) else True


@pytest.fixture
def recipe() -> Callable[..., dict[str, Any]]:
    """Runs the block of docs/ecosystem.md that has some code, and returns its names."""

    def run(code: str, **names: Any) -> dict[str, Any]:  # noqa: ANN401
        (block,) = [block for block in python_blocks(PAGE) if code in block.code]
        exec(block.compiled(PAGE), names)  # type: ignore[arg-type] # noqa: S102 - our own documentation
        return names

    return run


@pytest.fixture(scope="session")
def tokenizer() -> TinyTokenizer:
    """Byte pairs of their own, learned from the text that comes with the package."""
    return train_tokenizer(sample_text()[:50_000], vocab_size=320)


@pytest.fixture
def shape(tokenizer: TinyTokenizer) -> GPT2Config:
    """A shape small enough to run in a millisecond, in which no two sizes are equal."""
    return GPT2Config(vocab_size=tokenizer.n_vocab, context_length=48, n_layer=2, n_head=4, n_embd=32, dropout=0.0)


@pytest.fixture
def new_model(shape: GPT2Config) -> Callable[..., GPT2Model]:
    """Makes a model whose weights are large enough that its logits differ clearly, in evaluation mode."""

    def make(**changes: Any) -> GPT2Model:  # noqa: ANN401
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config(**{**vars(shape), **changes}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(5)
        return model.eval()

    return make


@pytest.fixture
def directory(new_model: Callable[..., GPT2Model], tokenizer: TinyTokenizer, tmp_path: Path) -> Path:
    """A directory of a model with its tokenizer, as every run writes it."""
    directory = tmp_path / "runs" / "my-novel"  # as the page names it
    new_model().save_pretrained(directory, tokenizer=tokenizer)
    return directory


@pytest.fixture
def ids(shape: GPT2Config) -> torch.Tensor:
    """Tokens, (3, 12)."""
    return torch.randint(shape.vocab_size, (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def near(request: pytest.FixtureRequest) -> Callable[[Any, Any, float], None]:
    """Checks that two arrays differ by at most a limit; the largest differences are printed at the end."""

    def check(found: Any, expected: Any, limit: float) -> None:  # noqa: ANN401
        one, other = torch.as_tensor(found).detach(), torch.as_tensor(expected).detach()
        assert one.shape == other.shape
        difference = float((one.double() - other.double()).abs().max())
        test = request.node.nodeid.rpartition("/")[2]
        DIFFERENCES[test] = max(difference, DIFFERENCES.get(test, 0.0))
        assert difference <= limit

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the largest difference of each test."""
    for test, difference in sorted(DIFFERENCES.items()):
        terminalreporter.write_line(f"{difference:.1e} at most: {test}")
