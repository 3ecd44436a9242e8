"""TransformerLens: its bridge to transformers opens a directory as written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinygpt2 import GPT2Model

transformer_lens = pytest.importorskip("transformer_lens")

pytestmark = pytest.mark.ecosystem


def test_the_bridge_has_the_same_activations(directory: Path, ids: Tensor, near: Callable[..., None]) -> None:
    bridge = transformer_lens.TransformerBridge.boot_transformers(str(directory), device="cpu")
    model = GPT2Model.from_pretrained(directory)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(ids)
        near(logits, model(ids), 1e-4)
        near(cache["blocks.1.hook_resid_pre"], model.h[0](model.wte(ids) + model.wpe.weight[:12], 0, None, None), 1e-4)
