"""GPT-2: embeddings, blocks of attention and MLP, and the head that predicts the next token.

Sources: "Language Models are Unsupervised Multitask Learners" (Radford et al. 2019) and OpenAI's ``gpt-2/src/model.py``
for what the paper leaves open: the tanh form of GELU, layer norm's epsilon, the scale of the residual projections.
The names of the parts are those of transformers' GPT-2.
"""

import math
import os
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2.config import GPT2Config
from tinygpt2.formats.huggingface import read_pretrained, write_pretrained
from tinygpt2.kernels.dropout import Dropout, dropout
from tinygpt2.model.cache import KVCache
from tinygpt2.model.checks import check_cache, check_tokens

INITIAL_STD = 0.02  # GPT-2's, for all matrices and embeddings
LAYER_NORM_EPSILON = 1e-5


class Linear(nn.Linear):
    """`torch.nn.Linear` with `linear`."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns ``F.linear(x, weight, bias)``, for a single row on all cores of a CPU.

    PyTorch multiplies a matrix by a vector on one core, which reads memory at a fraction of what the machine can. A
    batch of matrices is spread over the cores, and so are the rows of the weight as a batch of blocks of rows.
    """
    height, width = weight.shape
    if (
        torch.compiler.is_compiling()
        or x.numel() != width  # more than one row
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or height < 64 * (threads := torch.get_num_threads())
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, weight, bias)
    rest = height % threads
    blocks = (weight[:-rest] if rest else weight).view(threads, -1, width)
    # Laid out as the transpose of a row the vector is four times as fast as as a column.
    column = x.reshape(1, width).t().expand(threads, -1, -1)
    out = torch.bmm(blocks, column).view(-1)
    if rest:
        out = torch.cat([out, weight[-rest:] @ x.view(-1)])
    if bias is not None:
        out += bias
    return out.view(*x.shape[:-1], height)


LONG = 512  # positions, from which on a CPU gains more by not making the weights of attention than it loses


def _causal_attention(query: Tensor, key: Tensor, value: Tensor, p: float) -> Tensor:
    """Returns ``F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)``, (B, H, T, D).

    On a CPU this is faster with dropout, for which PyTorch leaves its fused kernel, and faster on few positions, for
    which that kernel's products of matrices are small.
    """
    batch, heads, n, width = query.shape
    query, key, value = (x.reshape(-1, n, width) for x in (query, key, value))  # (B * H, T, D)
    later = torch.full((n, n), -math.inf, dtype=query.dtype).triu_(1)
    weights = torch.baddbmm(later, query, key.transpose(1, 2), alpha=1 / math.sqrt(width)).softmax(dim=-1)
    if p:
        weights = dropout(weights, p)
    return (weights.to(value.dtype) @ value).view(batch, heads, n, width)


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.resid_dropout = Dropout(config.dropout)

    @override
    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        n = x.shape[1]
        heads = self.c_attn(x).unflatten(-1, (3, self.n_head, -1))  # (B, T, 3, H, D)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D) each
        if cache is not None:
            key, value = cache.update(layer, key, value)  # (B, H, S, D) each
        p = self.dropout if self.training else 0.0
        # is_causal aligns queries and keys at their first ones: right only where there are as many of both.
        causal = mask is None and n > 1
        if causal and x.device.type == "cpu" and (p or n <= LONG):
            mixed = _causal_attention(query, key, value, p)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=p, is_causal=causal)
        out: Tensor = self.resid_dropout(self.c_proj(mixed.transpose(1, 2).flatten(2)))  # (B, T, C)
        return out


class MLP(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.c_fc(x), approximate="tanh")  # (B, T, 4C)
        out: Tensor = self.dropout(self.c_proj(hidden))
        return out


class Block(nn.Module):
    """Attention, then MLP, each on the normalised stream and added to it."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON)
        self.mlp = MLP(config)

    @override
    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), layer, cache, mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT2Model(nn.Module):
    """GPT-2 with its language-model head, initialised as in the paper.

    Args:
        config: Its shape.

    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=2, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 100])
    >>> model
    GPT2Model(GPT2Config(vocab_size=100, context_length=16, ...), 29,... parameters)
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context_length, config.n_embd)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON)
        # With tied weights there is no module for the head, so that nothing is shared: safetensors, FSDP and optimizers
        # see every tensor once.
        self.lm_head = None if config.tie_weights else Linear(config.n_embd, config.vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        # Each block adds two branches to the residual stream; scaled so, its variance does not grow with the depth.
        residual_std = INITIAL_STD / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=residual_std)
            elif parameter.dim() >= 2:
                nn.init.normal_(parameter, std=INITIAL_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def head_weight(self) -> Tensor:
        """Weight of the head, (V, C): the token embedding's when tied."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.wte.weight.device

    @override
    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the token after each position.

        Args:
            tokens: (B, T) int64, each from 0 to V - 1.
            cache: Where given, ``tokens`` continue what it holds, and are added to it.

        Returns:
            Logits, (B, T, V), unnormalised log-probabilities, in the dtype of the weights (or of autocast).

        Raises:
            ValueError: If ``tokens`` is not (B, T) of integers, has an id outside the vocabulary (checked on the CPU),
                or reaches beyond the context length or the cache's capacity.
        """
        return linear(self.hidden_states(tokens, cache), self.head_weight)

    def last_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the token after the last position, (B, V): ``forward(tokens, cache)[:, -1]``.

        Arguments and errors are those of ``forward``; where nothing overrides it, the head is spared the other
        positions.
        """
        return linear(self.hidden_states(tokens, cache)[:, -1], self.head_weight)

    def hidden_states(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns what the head reads: the last block's output, normalised.

        Args:
            tokens: (B, T) int64.
            cache: As in ``forward``.

        Returns:
            (B, T, C).

        Raises:
            ValueError: As ``forward``.
        """
        if not torch.compiler.is_compiling():
            check_tokens(tokens, self.config)
        n = tokens.shape[1]
        if cache is None:
            mask, positions = None, torch.arange(n, device=tokens.device).unsqueeze(0)  # (1, T)
        else:
            check_cache(tokens, cache, self.config)
            mask, positions = cache.attention_mask(n), cache.positions(n)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (B, T, C)
        for layer, block in enumerate(self.h):
            x = block(x, layer, cache, mask)
        if cache is not None:
            cache.advance(n)
        out: Tensor = self.ln_f(x)
        return out

    def num_parameters(self) -> int:
        """Returns how many numbers are trained, as published: 124,439,808 for ``"gpt2"``.

        >>> with torch.device("meta"):
        ...     GPT2Model(GPT2Config.preset("gpt2-medium")).num_parameters()
        354823168
        """
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> Self:
        """Returns the model saved in a directory in Hugging Face layout, in evaluation mode, on the CPU.

        Weights are converted to PyTorch's default dtype, float32 unless you changed it. Nothing is downloaded and no
        pickle is read. ``huggingface_hub.snapshot_download("openai-community/gpt2")`` gives a directory to pass.

        Args:
            path: Directory with ``config.json`` and ``model.safetensors``, written by ``save_pretrained``, ours or
                transformers'.

        Raises:
            FileNotFoundError: If the directory or a file is missing.
            ValueError: If a file is damaged, or holds another model than it says or one that tinygpt2 does not have.
        """
        config, state = read_pretrained(path)
        with torch.device("meta"):  # no memory and no random numbers for weights that are about to be replaced
            model = cls(config)
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        found = {name: tuple(weight.shape) for name, weight in state.items()}
        if expected != found:
            names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            first = names[0]
            raise ValueError(
                f"the weights in {os.fspath(path)} are not those of its config.json: {first} should be "
                f"{expected.get(first, 'absent')} and is {found.get(first, 'absent')}"
                + (f"; {len(names)} weights differ" if len(names) > 1 else "")
            )
        dtype = torch.get_default_dtype()
        # A copy of each: what safetensors gives lies in the file, and would change with it.
        copies = {
            name: weight.to(dtype, copy=True, memory_format=torch.contiguous_format) for name, weight in state.items()
        }
        model.load_state_dict(copies, assign=True)
        return model.eval()

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes ``config.json`` and ``model.safetensors`` into a directory, which transformers reads as they are.

        The directory is made if it is not there. Each file replaces an older one in one step.

        Raises:
            OSError: If it cannot be written; files that were there are unharmed.

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
        write_pretrained(path, self.config, self.state_dict())

    @override
    def __repr__(self) -> str:
        return f"GPT2Model({self.config}, {self.num_parameters():,} parameters)"
