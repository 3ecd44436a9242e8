"""ONNX: a model exported by PyTorch, run by onnxruntime, with and without a cache of earlier keys and values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tinygpt2 import GPT2Model, KVCache
from tinygpt2.kernels.attention import LONG

onnxruntime = pytest.importorskip("onnxruntime", minversion="1.20")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.ecosystem

ANY = Dim.DYNAMIC


class PastKeys(KVCache):
    """A cache made of the keys and values of earlier positions, (n_layer, B, H, S, D) each, which it leaves alone."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, keys.shape[3]
        self.grown: list[tuple[Tensor, Tensor]] = []

    def positions(self, n: int) -> Tensor:
        return torch.arange(self.length, self.length + n).unsqueeze(0)

    def attention_mask(self, n: int) -> Tensor:
        slots = torch.arange(self.length + n)
        return (slots <= slots[self.length :].unsqueeze(1))[None, None]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        keys = torch.cat([self.keys[layer], keys], dim=2)
        values = torch.cat([self.values[layer], values], dim=2)
        self.grown.append((keys, values))
        return keys, values

    def advance(self, n: int) -> None:
        """Nothing: the caller has the new keys and values."""


class NextLogits(nn.Module):
    """A model as a function of new tokens and earlier keys and values."""

    def __init__(self, model: GPT2Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        past = PastKeys(keys, values)
        logits = self.model(tokens, past)
        new_keys, new_values = (torch.stack(grown) for grown in zip(*past.grown, strict=True))
        return logits, new_keys, new_values


def session_of(path: Path, module: nn.Module, inputs: tuple[Tensor, ...], sizes: Any, **names: Any) -> Any:  # noqa: ANN401
    """Exports a module as a file, and opens it."""
    program = torch.onnx.export(module.eval(), inputs, dynamo=True, dynamic_shapes=sizes, verbose=False, **names)
    assert program is not None
    program.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("context_length", [48, LONG + 8])
@torch.no_grad()
def test_every_batch_and_length_has_the_models_logits(
    new_model: Callable[..., GPT2Model], tmp_path: Path, near: Callable[..., float], context_length: int
) -> None:
    model = new_model(context_length=context_length)
    tokens = torch.randint(model.config.vocab_size, (2, 8))
    session = session_of(tmp_path / "model.onnx", model, (tokens,), ({0: ANY, 1: ANY},))
    (name,) = [value.name for value in session.get_inputs()]
    for batch, n in ((1, 1), (3, 1), (1, 7), (2, context_length)):
        tokens = torch.randint(model.config.vocab_size, (batch, n))
        near(session.run(None, {name: tokens.numpy()})[0], model(tokens), 1e-4)


@torch.no_grad()
def test_a_cache_goes_in_and_comes_out(
    new_model: Callable[..., GPT2Model], tmp_path: Path, near: Callable[..., float]
) -> None:
    """The recipe of the page on the ecosystem: pieces of any length, from none to a full context."""
    model = new_model()
    config = model.config
    sizes = (config.n_layer, 2, config.n_head, 5, config.head_width)
    session = session_of(
        tmp_path / "next.onnx", NextLogits(model), (torch.ones(2, 3, dtype=torch.int64), torch.randn(sizes),
        torch.randn(sizes)), ({0: ANY, 1: ANY}, {1: ANY, 3: ANY}, {1: ANY, 3: ANY}),
        input_names=["tokens", "keys", "values"], output_names=["logits", "new_keys", "new_values"],
    )  # fmt: skip
    for batch in (1, 3):
        tokens = torch.randint(config.vocab_size, (batch, config.context_length))
        keys = values = torch.zeros(config.n_layer, batch, config.n_head, 0, config.head_width).numpy()
        found, at = [], 0
        for n in (7, 1, 1, 12, config.context_length - 21):
            piece = tokens[:, at : at + n].numpy()
            logits, keys, values = session.run(None, {"tokens": piece, "keys": keys, "values": values})
            found.append(torch.from_numpy(logits))
            at += n
        near(torch.cat(found, dim=1), model(tokens), 1e-4)
