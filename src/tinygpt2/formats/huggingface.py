"""The Hugging Face layout of a GPT-2: ``config.json`` and its weights, as transformers reads and writes them.

Our model already uses transformers' names, so only four weights differ, by a transposition: transformers keeps GPT-2's
``Conv1D``, whose weight is (in, out) where that of ``nn.Linear`` is (out, in).
"""

import json
import logging
import os
from collections.abc import Container, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinygpt2._internal.checks import shown
from tinygpt2._internal.directories import rereading
from tinygpt2._internal.files import atomic_write, make_directories, read_json, write_chunks
from tinygpt2.config import MODEL_RANGES, GPT2Config
from tinygpt2.formats.manifest import check_replaceable, has_manifest, verify_manifest
from tinygpt2.formats.weights import (
    WEIGHT_FILES,
    WEIGHTS_FILE,
    Contents,
    read_weights,
    remove_other_weights,
    weight_contents,
)

logger = logging.getLogger(__name__)

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
ADAPTER_FILE = "adapter_config.json"

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

GPT2_END_OF_TEXT = 50256

INT8 = "tinygpt2-int8"
"""The type of a model with weights of 8 bits, which is ours alone."""

_CONFIG_LIMIT = 1 << 20  # bytes

_QKV_BIAS, _HEAD, _EMBEDDING = ".attn.c_attn.bias", "lm_head.weight", "wte.weight"

_SAME = (
    "n_inner", "activation_function", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
    "initializer_range",
)  # fmt: skip

# Our fields, and transformers' names for them.
FIELDS = {
    "vocab_size": "vocab_size",
    "context_length": "n_positions",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "dropout": "resid_pdrop",
    "tie_weights": "tie_word_embeddings",
    **{name: name for name in _SAME},
}

# Options that transformers' GPT-2 has and ours does not, with the value that matches ours.
FIXED: dict[str, object] = {"model_type": "gpt2", "add_cross_attention": False}


def config_to_huggingface(config: GPT2Config, end_of_text: int | None = GPT2_END_OF_TEXT) -> dict[str, Any]:
    """Returns the content of ``config.json`` for a model of this shape.

    Args:
        config: The shape.
        end_of_text: The id that ends a text, if any. A model that does not have it has none.

    >>> config_to_huggingface(GPT2Config())["n_positions"]
    1024
    """
    if end_of_text is not None and end_of_text >= config.vocab_size:
        end_of_text = None
    return {
        "architectures": ["GPT2LMHeadModel"],
        **FIXED,
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "n_ctx": config.context_length,  # as OpenAI's own has it, for programs that look for no other name
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "bos_token_id": end_of_text,  # otherwise transformers takes GPT-2's, which a smaller vocabulary does not have
        "eos_token_id": end_of_text,
        "qkv_bias": config.qkv_bias,  # only ours: transformers ignores it and reads a bias of zeros
    }


def config_from_huggingface(content: Mapping[str, Any]) -> GPT2Config:
    """Returns the shape that a ``config.json`` describes.

    Raises:
        ValueError: If it is not a GPT-2, or has an option that tinygpt2 does not support.
    """
    for key, ours in FIXED.items():
        if content.get(key, ours) not in ((ours, INT8) if key == "model_type" else (ours,)):
            raise ValueError(f"{key} is {shown(content[key])}, but tinygpt2's GPT-2 has {ours!r}")
    fields = {
        ours: MODEL_RANGES[ours].check(theirs, content[theirs]) for ours, theirs in FIELDS.items() if theirs in content
    }
    config = GPT2Config(**fields, qkv_bias=content.get("qkv_bias", True))
    dropouts = {key: content[key] for key in ("embd_pdrop", "attn_pdrop") if key in content}
    if others := {
        key: value for key, value in dropouts.items() if MODEL_RANGES["dropout"].check(key, value) != config.dropout
    }:
        logger.warning("%s differ from resid_pdrop=%s, which is used for all dropout", others, config.dropout)
    return config


def state_to_huggingface(state: Mapping[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:
    """Returns views of our weights under transformers' names and in its layout."""
    result = {}
    for name, weight in state.items():
        theirs = name if name.startswith("lm_head.") else f"transformer.{name}"
        result[theirs] = (weight.t() if name.endswith(TRANSPOSED) else weight).detach()
    if not config.qkv_bias:
        zeros = torch.zeros(3 * config.n_embd, dtype=result["transformer.wpe.weight"].dtype)
        result |= {f"transformer.h.{i}.attn.c_attn.bias": zeros for i in range(config.n_layer)}
    return result


def state_from_huggingface(
    state: Mapping[str, Tensor], config: GPT2Config, *, keep: Container[str] = ()
) -> dict[str, Tensor]:
    """Returns transformers' weights under our names and in our layout.

    OpenAI's original files lack the prefix ``transformer.`` and carry the causal mask as ``attn.bias``; both are read.
    A head beside tied embeddings is left out.

    Args:
        state: The weights.
        config: Of the model.
        keep: Names, ours, of weights that stay although GPT-2 has no use for them: a subclass may.
    """
    result = {}
    for theirs, weight in state.items():
        name = _our_name(theirs)
        mask = name.endswith((".attn.bias", ".attn.masked_bias"))
        tied_head = name == _HEAD and config.tie_weights
        no_bias = name.endswith(_QKV_BIAS) and not config.qkv_bias
        if name in keep or not (mask or tied_head or no_bias):
            result[name] = weight.t() if name.endswith(TRANSPOSED) else weight
    return result


def cut_context(
    config: GPT2Config, state: Mapping[str, Tensor], context_length: int
) -> tuple[GPT2Config, dict[str, Tensor]]:
    """Returns the configuration and the weights of a model that keeps so many positions, the first ones.

    Raises:
        ValueError: If it has fewer.
    """
    length = MODEL_RANGES["context_length"].check("context_length", context_length)
    if length > config.context_length:
        raise ValueError(f"context_length is {length}, but the model has positions for {config.context_length} tokens")
    positions = "wpe.weight"
    return replace(config, context_length=length), {**state, positions: state[positions][:length]}


def _our_name(theirs: str) -> str:
    return theirs.removeprefix("transformer.")


def write_pretrained(directory: str | os.PathLike[str], contents: Contents) -> None:
    """Writes what `pretrained_contents` returned, each file atomically; creates the directory if it does not exist.

    Raises:
        ValueError: If a manifest there has the hashes of files that would be replaced.
    """
    directory = Path(directory)
    check_replaceable(directory, contents)
    make_directories(directory)
    for name, chunks in contents.items():
        atomic_write(directory / name, partial(write_chunks, chunks=chunks))
    remove_other_weights(directory, contents)


def pretrained_contents(
    config: GPT2Config,
    state: Mapping[str, Tensor],
    end_of_text: int | None = GPT2_END_OF_TEXT,
    max_shard_size: int | None = None,
) -> Contents:
    """Returns the bytes of the weights and of ``config.json``, with the given end-of-text id."""
    weights = state_to_huggingface(state, config)
    dtype = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
    content = config_to_huggingface(config, end_of_text) | {"dtype": str(dtype).removeprefix("torch.")}
    if any(weight.dtype == torch.int8 for weight in weights.values()):
        content["model_type"] = INT8  # other libraries would take the integers for weights
    return weight_contents(weights, max_shard_size) | {CONFIG_FILE: [(json.dumps(content, indent=2) + "\n").encode()]}


def generation_contents(end_of_text: int | None) -> Contents:
    """Returns the content of the file that tells transformers how to generate: which id ends a text, and pads."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {GENERATION_FILE: [(json.dumps(dict.fromkeys(names, end_of_text), indent=2) + "\n").encode()]}


@rereading
def read_pretrained(
    directory: str | os.PathLike[str], *, keep: Container[str] = ()
) -> tuple[GPT2Config, dict[str, Tensor]]:
    """Returns the configuration and, under our names, the weights of a directory in Hugging Face layout.

    If there is a ``manifest.json`` of ours, as in a checkpoint, the two files must match it.

    Args:
        directory: The directory.
        keep: As in `state_from_huggingface`.

    Raises:
        FileNotFoundError: If the directory or one of its two files is missing.
        ValueError: If a file is damaged or describes a model that tinygpt2 does not support.
    """
    config_file, weights_file = _files(Path(directory))
    if has_manifest(config_file.parent):
        verify_manifest(config_file.parent, (CONFIG_FILE, weights_file.name))
    try:
        config = config_from_huggingface(read_json(config_file, limit=_CONFIG_LIMIT, links=True))
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read {config_file}: {error}") from error
    try:
        state = read_weights(weights_file)
    except ValueError as error:
        raise ValueError(f"cannot read {weights_file}: {error}") from error
    if config.n_layer > len(state):  # before a damaged file can ask for a model of any size
        raise ValueError(
            f"{config_file} has n_layer={config.n_layer}, but {weights_file.name} has {len(state)} weights"
        )
    config = _as_trained(config, state, weights_file, keep)
    result = state_from_huggingface(state, config, keep=keep)
    for name, weight in result.items():
        integers = weight.dtype == torch.int8 and name.removesuffix(".weight") + ".scale" in result
        if not (weight.is_floating_point() or integers or name in keep):
            raise ValueError(
                f"cannot read {weights_file}: {name} is {weight.dtype}, not floating point; save the model before it "
                "is quantised"
            )
    return config, result


def _as_trained(config: GPT2Config, state: Mapping[str, Tensor], file: Path, keep: Container[str]) -> GPT2Config:
    """Returns the configuration that the weights have: none of them but those to ``keep`` may be left out silently."""
    if not config.qkv_bias and any(weight.any() for name, weight in state.items() if name.endswith(_QKV_BIAS)):
        config = replace(config, qkv_bias=True)  # transformers trained the zeros that we wrote for it
    ours = {_our_name(theirs): weight for theirs, weight in state.items()}
    head, embedding = ours.get(_HEAD), ours.get(_EMBEDDING)
    if _HEAD in keep or not config.tie_weights or head is None or embedding is None:
        return config
    if not _equal(head, embedding):
        logger.warning("%s has a head that differs from the embedding, although %s ties them; the model has this head",
                       file, CONFIG_FILE)  # fmt: skip
        config = replace(config, tie_weights=False)
    return config


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.to(other.dtype), other)


def _files(directory: Path) -> tuple[Path, Path]:
    """Returns the paths of a model's configuration and weights; raises ``FileNotFoundError`` if one is missing."""
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise FileNotFoundError(
            f"{directory} {what}; expected a directory with {CONFIG_FILE} and {WEIGHTS_FILE}, or the name of a model "
            "on the Hub, such as 'openai-community/gpt2'"
        )
    names = (CONFIG_FILE, next((name for name in WEIGHT_FILES if (directory / name).exists()), WEIGHTS_FILE))
    for name in names:
        if not (directory / name).exists():
            raise FileNotFoundError(f"{directory} has no {name}{_hint(directory)}")
    return directory / names[0], directory / names[1]


def _hint(directory: Path) -> str:
    if (directory / ADAPTER_FILE).exists():
        return (
            "; it has an adapter of peft, which is merged into its model by "
            f"peft.AutoPeftModelForCausalLM.from_pretrained({str(directory)!r}).merge_and_unload()"
            ".save_pretrained(...)"
        )
    if any(directory.glob("*.pt")) or any(directory.glob("*.pth")):
        return "; checkpoints of nanoGPT and LLMs-from-scratch are read by load_nanogpt and load_llms_from_scratch"
    return ""
