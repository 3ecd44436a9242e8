"""ONNX: a model exported by PyTorch, run by onnxruntime, with and without a cache of earlier keys and values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

from tinygpt2 import GPT2Model, generate
from tinygpt2.kernels.attention import LONG

onnxruntime = pytest.importorskip("onnxruntime", minversion="1.20")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.ecosystem


@pytest.mark.parametrize("context_length", [48, LONG + 8])
@torch.no_grad()
def test_every_batch_and_length_has_the_models_logits(
    new_model: Callable[..., GPT2Model], tmp_path: Path, near: Callable[..., float], context_length: int
) -> None:
    model = new_model(context_length=context_length)
    tokens = torch.randint(model.config.vocab_size, (2, 8))
    program = torch.onnx.export(model, (tokens,), dynamo=True, dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},))
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (name,) = [value.name for value in session.get_inputs()]
    for batch, n in ((1, 1), (3, 1), (1, 7), (2, context_length)):
        tokens = torch.randint(model.config.vocab_size, (batch, n))
        near(session.run(None, {name: tokens.numpy()})[0], model(tokens), 1e-4)


@pytest.mark.usefixtures("directory")
@torch.no_grad()
def test_a_cache_goes_in_and_comes_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    near: Callable[..., None],
    recipe: Callable[..., dict[str, Any]],
) -> None:
    """The recipe of the page on the ecosystem: pieces of any length, from none to a full context."""
    monkeypatch.chdir(tmp_path)
    exported = recipe("class PastKeys")
    model, config = exported["model"], exported["shape"]
    session = onnxruntime.InferenceSession("next.onnx")
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
    last = recipe("InferenceSession", shape=config)["tokens"]
    assert last.item() == generate(model, torch.tensor([[3, 1, 4]]), max_new_tokens=20)[0, -1]
