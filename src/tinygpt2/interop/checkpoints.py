"""Checkpoints of other implementations of GPT-2, as models of ours."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_int, check_path, shown
from tinygpt2.config import MODEL_RANGES, GPT2Config
from tinygpt2.formats.weights import read_pickle, tensors_in
from tinygpt2.model.gpt2 import GPT2Model, model_with_weights

_NANOGPT_SHAPE = {
    "vocab_size": "vocab_size", "context_length": "block_size", "n_layer": "n_layer", "n_head": "n_head",
    "n_embd": "n_embd", "dropout": "dropout",
}  # fmt: skip

_BOOKS_BLOCK = {
    "norm1.scale": "ln_1.weight", "norm1.shift": "ln_1.bias", "norm2.scale": "ln_2.weight", "norm2.shift": "ln_2.bias",
    "att.out_proj.weight": "attn.c_proj.weight", "att.out_proj.bias": "attn.c_proj.bias",
    "ff.layers.0.weight": "mlp.c_fc.weight", "ff.layers.0.bias": "mlp.c_fc.bias",
    "ff.layers.2.weight": "mlp.c_proj.weight", "ff.layers.2.bias": "mlp.c_proj.bias",
}  # fmt: skip
_BOOKS_REST = {
    "wte.weight": "tok_emb.weight", "wpe.weight": "pos_emb.weight", "ln_f.weight": "final_norm.scale",
    "ln_f.bias": "final_norm.shift",
}  # fmt: skip
_BOOKS_HEAD = "out_head.weight"


def load_nanogpt(path: str | os.PathLike[str]) -> GPT2Model:
    """Returns the model in a checkpoint of nanoGPT, in evaluation mode, on the CPU.

    Its GELU is the exact one, ``activation_function="gelu"``. Without ``bias``, it has none in linear layers and layer
    norms; ours then has biases of zero. Of the pickle nothing but tensors, containers and plain values is read.

    Args:
        path: A ``ckpt.pt`` that its ``train.py`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is not a path.
        ValueError: If it is damaged, or is not such a checkpoint.

    Source: https://github.com/karpathy/nanoGPT, ``train.py`` and ``model.py``.

    >>> load_nanogpt("out/ckpt.pt")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no file out/ckpt.pt
    """
    file = _existing(path)
    content = read_pickle(file)
    parts = content if isinstance(content, Mapping) else {}
    arguments = parts.get("model_args")
    if not isinstance(arguments, Mapping) or not arguments.keys() >= set(_NANOGPT_SHAPE.values()):
        raise ValueError(
            f"{file} is not a checkpoint of nanoGPT, which has model_args with {', '.join(_NANOGPT_SHAPE.values())}, "
            f"got {shown(arguments)}"
        )
    shape: dict[str, Any] = {
        ours: MODEL_RANGES[ours].check(theirs, arguments[theirs]) for ours, theirs in _NANOGPT_SHAPE.items()
    }
    weights = tensors_in(parts.get("model"), f"model in {file.name}")
    state = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    state = {name: weight for name, weight in state.items() if not name.endswith(".attn.bias")}  # the causal mask
    head = state.pop("lm_head.weight", None)
    tied = head is None or ("wte.weight" in state and torch.equal(head, state["wte.weight"]))
    if head is not None and not tied:
        state["lm_head.weight"] = head
    config = GPT2Config(**shape, activation_function="gelu", tie_weights=tied)
    biases = {} if arguments.get("bias", True) else _zeros(config, state)
    return model_with_weights(GPT2Model, config, biases | state, source=f"{file} do not fit its shape")


def load_llms_from_scratch(path: str | os.PathLike[str], *, n_head: int = 12) -> GPT2Model:
    """Returns the model in a file of the book "Build a Large Language Model (From Scratch)", in evaluation mode.

    Its three matrices for query, key and value become one, and its head is tied if it equals the embedding. Of the
    pickle nothing but tensors, containers and plain values is read.

    Args:
        path: What ``torch.save`` wrote of ``model.state_dict()``, or of a dict that has it as ``model_state_dict``.
        n_head: Number of attention heads, ``n_heads`` there, which the file does not say.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If an argument is of the wrong type.
        ValueError: If it is damaged, or is not such a model, or ``n_head`` does not divide its width.

    Source: https://github.com/rasbt/LLMs-from-scratch, chapters 4 and 5.

    >>> load_llms_from_scratch("model.pth", n_head=12)
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no file model.pth
    """
    file = _existing(path)
    content = read_pickle(file)
    if isinstance(content, Mapping) and "model_state_dict" in content:
        content = content["model_state_dict"]
    theirs = tensors_in(content, file.name)
    n_layer = sum(name.endswith(".att.out_proj.weight") for name in theirs)
    try:
        state = {ours: theirs[name] for ours, name in _BOOKS_REST.items()}
        for i in range(n_layer):
            block = f"trf_blocks.{i}"
            state |= {f"h.{i}.{ours}": theirs[f"{block}.{name}"] for name, ours in _BOOKS_BLOCK.items()}
            for kind in ("weight", "bias"):
                parts = [theirs.get(f"{block}.att.W_{name}.{kind}") for name in ("query", "key", "value")]
                if kind == "weight" or parts[0] is not None:
                    state[f"h.{i}.attn.c_attn.{kind}"] = torch.cat([part for part in parts if part is not None])
        head = theirs[_BOOKS_HEAD]
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file} is not a model of LLMs-from-scratch: it has no {error.args[0]}") from None
    vocab_size, n_embd = state["wte.weight"].shape
    tied = torch.equal(head, state["wte.weight"])
    if not tied:
        state["lm_head.weight"] = head
    config = GPT2Config(
        vocab_size=vocab_size, context_length=len(state["wpe.weight"]), n_layer=n_layer,
        n_head=check_int("n_head", n_head), n_embd=n_embd, tie_weights=tied,
        qkv_bias="h.0.attn.c_attn.bias" in state,
    )  # fmt: skip
    return model_with_weights(GPT2Model, config, state, source=f"{file} do not fit its shape")


def _existing(path: str | os.PathLike[str]) -> Path:
    file = check_path("path", path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return file


def _zeros(config: GPT2Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns biases of zero for all that a state lacks."""
    with torch.device("meta"):
        names = {name: weight.shape for name, weight in GPT2Model(config).named_parameters()}
    return {name: torch.zeros(shape) for name, shape in names.items() if name.endswith("bias") and name not in state}
