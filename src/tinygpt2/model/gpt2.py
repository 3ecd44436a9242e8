"""GPT-2: embeddings, blocks of attention and MLP, and the head that predicts the next token.

Sources: "Language Models are Unsupervised Multitask Learners" (Radford et al. 2019) and, for what the paper leaves open
(the tanh form of GELU, the epsilon of layer norm, the scale of the residual projections), OpenAI's
``gpt-2/src/model.py``. The modules are named as in transformers' GPT-2.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from tinygpt2._internal.checks import check_instance, check_int, check_path
from tinygpt2.config import GPT2Config
from tinygpt2.formats.hub import named_directory
from tinygpt2.formats.huggingface import (
    cut_context,
    generation_contents,
    pretrained_contents,
    read_pretrained,
    write_pretrained,
)
from tinygpt2.formats.weights import Contents
from tinygpt2.kernels.attention import scaled_dot_product_attention
from tinygpt2.kernels.dropout import Dropout
from tinygpt2.kernels.linear import linear, project
from tinygpt2.kernels.switch import calls_only, is_plain_computation
from tinygpt2.model.cache import KVCache, check_dtype
from tinygpt2.model.checks import check_hidden, check_inputs, check_memory, check_weight_names, not_finite
from tinygpt2.model.int8 import Int8Embedding, Int8Linear, is_quantized, replace_layers
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer, end_of_text
from tinygpt2.tokenizers.storage import remove_others, tokenizer_files

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound="GPT2Model")

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.scale = _scale(config, layer)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = Dropout(config.dropout)
        self.resid_dropout = Dropout(config.dropout)

    @override
    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        batch, n, width = x.shape
        heads = project(self.c_attn, x).view(batch, n, 3, self.n_head, width // self.n_head)  # (B, T, 3, H, D)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D) each
        if cache is not None:
            key, value = cache.update(layer, key, value)  # (B, H, S, D) each
        dropout = self.attn_dropout
        mixed = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout.p if dropout.training else 0.0,
            # This aligns the first query with the first key, which is right only if there are as many of both. The
            # shapes are not compared: they are symbolic when traced.
            is_causal=mask is None and (cache is None or not cache.length),
            scale=self.scale,
            seed=dropout.usable_seed,
        )
        out: Tensor = self.resid_dropout(project(self.c_proj, mixed.transpose(1, 2).flatten(2)))  # (B, T, C)
        return out


def _scale(config: GPT2Config, layer: int) -> float | None:
    """Returns the factor of a block's attention scores; ``None`` for the usual one."""
    if config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx:
        return None
    scale = 1 / math.sqrt(config.head_width) if config.scale_attn_weights else 1.0
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


class MLP(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.inner_width)
        self.c_proj = nn.Linear(config.inner_width, config.n_embd)
        self.activation = ACTIVATIONS[config.activation_function]
        self.dropout = Dropout(config.dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(project(self.c_fc, x))  # (B, T, 4C)
        out: Tensor = self.dropout(project(self.c_proj, hidden))
        return out


class Block(nn.Module):
    """Attention, then an MLP, each applied to the normalised residual stream and added to it."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    @override
    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), layer, cache, mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT2Model(nn.Module):
    """GPT-2 with its language-model head, initialised as in the paper.

    Args:
        config: The shape of the model.

    Attributes:
        activation_checkpointing: Whether training keeps only what each block reads, and computes the block again for
            the backward pass: a third more work, and less memory. ``False`` unless you set it.

    Raises:
        TypeError: If it is not a `GPT2Config`.
        ValueError: If its weights are larger than the memory of the computer.

    >>> import torch
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=2, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 100])
    >>> model
    GPT2Model(GPT2Config(vocab_size=100, context_length=16, ...), 29,... parameters)
    """

    activation_checkpointing: bool = False

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        check_instance("config", config, GPT2Config, "a GPT2Config")
        check_memory(config)
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context_length, config.n_embd)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        # With tied weights the head has no module, so that no tensor is shared: safetensors, FSDP and optimizers see
        # every tensor once.
        self.lm_head = None if config.tie_weights else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        # Each block adds two branches to the residual stream; this scale keeps its variance from growing with depth.
        std = self.config.initializer_range
        residual_std = std / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=residual_std)
            elif parameter.dim() >= 2:
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def head_weight(self) -> Tensor:
        """The weight of the head, (V, C): when tied, the token embedding of each id."""
        if self.lm_head is not None:
            return self.lm_head.weight
        if type(self.wte).forward is nn.Embedding.forward and "forward" not in vars(self.wte):
            return self.wte.weight
        # An adapter or a quantised module has replaced it; calling that gives the embedding.
        every_id: Tensor = self.wte(torch.arange(self.config.vocab_size, device=self.device))
        return every_id

    @property
    def is_quantized(self) -> bool:
        """Whether the weights have 8 bits, as `quantize` makes them."""
        wte: nn.Module = self.wte
        return isinstance(wte, Int8Embedding)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @override
    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the token after each position.

        Args:
            tokens: (B, T) int64, each from 0 to V - 1.
            cache: If given, ``tokens`` continue the sequences in it, and are added to it.

        Returns:
            Logits, (B, T, V), in the dtype of the weights (or of autocast).

        Raises:
            RuntimeError: From PyTorch, if ``tokens`` are on another device than the weights.
            TypeError: If ``tokens`` is not a tensor, or ``cache`` not a `KVCache`.
            ValueError: If ``tokens`` is not (B, T) of integers, has an id outside the vocabulary (checked on the CPU),
                or reaches beyond the context length or the cache's capacity, or if the cache is of another shape, batch
                or device.
        """
        return self.head(self.hidden_states(tokens, cache))

    def last_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the token after the last position, (B, V): ``model(tokens, cache)[:, -1]``.

        Arguments and errors are those of ``forward``. Where this is equivalent to calling the model, the head skips
        the other positions.
        """
        if not (is_plain_computation() and self.splits()):
            logits: Tensor = self(tokens, cache)
            return logits[:, -1]
        return self.head(self.hidden_states(tokens, cache)[:, -1])

    def splits(self) -> bool:
        """Returns whether ``hidden_states`` followed by the head is provably equivalent to calling the model.

        It is not if a subclass overrides ``forward``, if the model or its head has a hook or an adapter, or if the
        model was compiled. Then only the call itself is right.
        """
        cls = type(self)
        return (
            calls_only(self, GPT2Model.forward)
            and (cls.head, cls.head_weight) == (GPT2Model.head, GPT2Model.head_weight)
            and "head" not in vars(self)
            and (
                self.lm_head is None
                or calls_only(self.lm_head, Int8Linear.forward)
                or (calls_only(self.lm_head, nn.Linear.forward) and self.lm_head.bias is None)
            )
        )

    def head(self, hidden: Tensor) -> Tensor:
        """Returns the logits, (..., V), of hidden states, (..., C).

        Raises:
            TypeError: If ``hidden`` is not a tensor.
            ValueError: If it is not floating point, (..., C).
        """
        check_hidden(hidden, self.config)
        if self.lm_head is None:
            wte: nn.Module = self.wte
            return wte.head(hidden) if isinstance(wte, Int8Embedding) else linear(hidden, self.head_weight)
        return project(self.lm_head, hidden)

    def hidden_states(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the input of the head: the last block's output, normalised.

        Args:
            tokens: (B, T) int64.
            cache: As in ``forward``.

        Returns:
            (B, T, C).

        Errors are those of ``forward``.
        """
        check_inputs(tokens, cache, self.config)
        n = tokens.shape[1]
        if cache is None:
            mask, positions = None, torch.arange(n, device=tokens.device)  # (T,)
        else:
            mask, positions = cache.attention_mask(n), cache.positions(n)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (B, T, C)
        saving = self.activation_checkpointing and cache is None and torch.is_grad_enabled()
        for layer, block in enumerate(self.h):
            x = checkpoint(block, x, layer, None, None, use_reentrant=False) if saving else block(x, layer, cache, mask)
        if cache is not None:
            cache.advance(n)
        out: Tensor = self.ln_f(x)
        return out

    def num_parameters(self) -> int:
        """Returns the number of trained parameters, as published: 124,439,808 for ``"gpt2"``.

        >>> import torch
        >>> with torch.device("meta"):
        ...     GPT2Model(GPT2Config.preset("gpt2-medium")).num_parameters()
        354823168
        """
        integers = (buffer for buffer in self.buffers() if buffer.dtype == torch.int8)  # of a quantised model
        return sum(weight.numel() for weight in (*self.parameters(), *integers))

    def with_vocab_size(self, vocab_size: int) -> Self:
        """Returns a copy with more ids, for a tokenizer with new tokens; the logits of the ids that there are stay.

        The rows of a new id, in the embedding and in the head, are the mean of the others: it is then about as likely
        as the average id, where random rows could make it the likeliest of all (Hewitt 2021).

        Args:
            vocab_size: Number of ids, at least that of the model.

        Raises:
            TypeError: If it is not an integer.
            ValueError: If it is smaller than now, its weights are larger than the memory of the computer, or the model
                has weights that its class does not make, for instance an adapter's, or weights of 8 bits.

        >>> shape = GPT2Config(
        ...     vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=4
        ... )
        >>> GPT2Model(shape).with_vocab_size(11).config.vocab_size
        11
        """
        if self.is_quantized:
            raise ValueError("a model with weights of 8 bits cannot be changed; change the one that it was made from")
        before = self.config.vocab_size
        config = replace(self.config, vocab_size=check_int("vocab_size", vocab_size, minimum=before))
        try:
            check_memory(config)
        except ValueError as error:
            raise ValueError(f"vocab_size is {config.vocab_size:,}: {error}") from None
        state = checked_state(self)
        for name in {"wte.weight", "lm_head.weight"} & state.keys():
            new = state[name].mean(dim=0, keepdim=True).expand(config.vocab_size - before, -1)
            state[name] = torch.cat([state[name], new])
        model = model_with_weights(type(self), config, state, dtype="auto", source="the model do not fit")
        model.activation_checkpointing = self.activation_checkpointing
        return model.train(self.training)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: torch.dtype | Literal["auto"] | None = None,
        context_length: int | None = None,
        revision: str | None = None,
        token: str | None = None,
    ) -> Self:
        """Returns a GPT-2 in Hugging Face layout, in evaluation mode, on the CPU.

        It is in a directory, or on the Hugging Face Hub: a name such as ``"openai-community/gpt2"``, of which there is
        no directory here, is looked for in the cache of ``huggingface_hub``, and downloaded if it is not there (extra
        ``hub``). The weights are in safetensors or pickled tensors, in one file or in shards; of a pickle, nothing but
        tensors is read. A warning is logged if a weight is not finite, or if the file has a head that differs from the
        embedding although the configuration ties them: the model then has that head.

        Args:
            path: Directory with ``config.json`` and the weights, written by ``save_pretrained`` of tinygpt2 or
                transformers; or a name on the Hub.
            dtype: Dtype of the weights; ``"auto"`` for those of the file, ``None`` for PyTorch's default, float32
                unless you changed it.
            context_length: Positions to keep, at most those of the file; ``None`` for all.
            revision: Branch, tag or commit on the Hub.
            token: Token for the Hub; by default the one that ``huggingface_hub`` finds.

        Raises:
            FileNotFoundError: If the directory or a file is missing, or the Hub has no such model, or it is not in the
                cache and cannot be downloaded.
            ImportError: If the name of a model on the Hub is given, and ``huggingface_hub`` is not installed.
            TypeError: If it is not a path.
            ValueError: If a file is damaged, the weights do not match ``config.json``, tinygpt2 does not support the
                model, or it has fewer positions than ``context_length``.
        """
        if not (isinstance(dtype, str) and dtype == "auto"):
            check_dtype(dtype)
        check_path("path", path)
        directory = named_directory(path, revision=revision, token=token)
        config, state = read_pretrained(directory)
        if context_length is not None:
            config, state = cut_context(config, state, context_length)
        source = f"{os.fspath(path)} are not those of its config.json"
        model = model_with_weights(cls, config, state, dtype=dtype, source=source)
        if reason := not_finite(model):
            logger.warning("the model in %s cannot be used: %s", os.fspath(path), reason)
        return model

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        *,
        tokenizer: AnyTokenizer | None = None,
        max_shard_size: int | None = None,
    ) -> None:
        """Writes ``config.json`` and ``model.safetensors`` into a directory; transformers can read them unchanged.

        The directory is created if it does not exist. Each file replaces an older one atomically, and shards of an
        earlier model are removed.

        Args:
            path: The directory.
            tokenizer: The one that the model was trained with, written beside the weights as by `save_tokenizer`, for
                `load_tokenizer` and for transformers' ``AutoTokenizer``; its end-of-text id is then the one in
                ``config.json``, and in ``generation_config.json``, by which transformers' ``generate`` stops and pads.
            max_shard_size: Bytes of a file of weights, of which there are several if they are more than that; ``None``
                for one file.

        Raises:
            OSError: If it cannot be written; existing files stay intact.
            TypeError: If it is not a path, or another kind of tokenizer than those that can be saved.
            ValueError: If the model has weights that ``from_pretrained`` would not read, for instance an adapter's; if
                the tokenizer cannot be saved; or if the directory is a checkpoint, whose files belong together.

        >>> import tempfile
        >>> shape = GPT2Config(
        ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
        ... )
        >>> model = GPT2Model(shape)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     model.save_pretrained(directory)
        ...     GPT2Model.from_pretrained(directory).config == model.config
        True
        """
        state = checked_state(self)
        directory = check_path("path", path)
        size = None if max_shard_size is None else check_int("max_shard_size", max_shard_size)
        own = None if tokenizer is None else as_tokenizer(tokenizer)
        contents = model_contents(self.config, state, own, max_shard_size=size)
        write_pretrained(directory, contents)
        if tokenizer is not None:
            remove_others(directory, contents)

    @override
    def __repr__(self) -> str:
        return f"GPT2Model({self.config}, {self.num_parameters():,} parameters)"


def checked_state(model: GPT2Model) -> dict[str, Tensor]:
    """Returns the weights of a model by their names.

    Raises:
        ValueError: If they are not those that its class makes for its shape, for instance an adapter's.
    """
    with torch.device("meta"):
        same = type(model)(model.config)
    if model.is_quantized:
        replace_layers(same)
    state: dict[str, Tensor] = model.state_dict()
    check_weight_names(state, same.state_dict())
    return state


def model_with_weights(
    kind: type[Model],
    config: GPT2Config,
    weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | Literal["auto"] | None = None,
    source: str,
) -> Model:
    """Returns a model of a shape with copies of these weights, in evaluation mode.

    Args:
        kind: Its class.
        config: The shape.
        weights: Its weights by their names.
        dtype: As for ``from_pretrained``.
        source: Where they are and what they should fit, for the message of an error: the weights in ...

    Raises:
        ValueError: If a weight is missing, has another shape, or has no place in such a model.
    """
    with torch.device("meta"):  # no memory and no random numbers for weights that will be replaced
        model = kind(config)
    if is_quantized(weights):
        replace_layers(model)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if expected != found:
        names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        first = names[0]
        raise ValueError(
            f"the weights in {source}: {first} should be {expected.get(first, 'absent')} but is "
            f"{found.get(first, 'absent')}" + (f"; {len(names)} weights differ" if len(names) > 1 else "")
        )
    wanted = torch.get_default_dtype() if dtype is None else dtype
    # Copies: tensors of a file of safetensors are mapped from it, and would change with it.
    copies = {
        name: weight.to(wanted if wanted != "auto" and weight.is_floating_point() else weight.dtype, copy=True,
                        memory_format=torch.contiguous_format)
        for name, weight in weights.items()
    }  # fmt: skip
    model.load_state_dict(copies, assign=True)
    return model.eval().requires_grad_(False) if is_quantized(weights) else model.eval()


def model_contents(
    config: GPT2Config, state: Mapping[str, Tensor], tokenizer: Tokenizer | None, *, max_shard_size: int | None = None
) -> Contents:
    """Returns the contents of all files in a model's directory, including the tokenizer's if there is one."""
    if tokenizer is None:
        return pretrained_contents(config, state, max_shard_size=max_shard_size)
    files = {name: [content] for name, content in tokenizer_files(tokenizer).items()}
    end = end_of_text(tokenizer)
    return {**pretrained_contents(config, state, end, max_shard_size), **generation_contents(end), **files}
