"""Checkpoints of others, held against models of their layouts, which are written here from their description."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2 import GPT2Model, load_llms_from_scratch, load_nanogpt

V, T, L, H, C = 61, 16, 2, 3, 24
TOKENS = torch.arange(2 * T).view(2, T)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention, (B, T, C) each."""
    batch, n, width = query.shape
    heads = [x.view(batch, n, H, width // H).transpose(1, 2) for x in (query, key, value)]
    mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
    return mixed.transpose(1, 2).reshape(batch, n, width)


class NanoNorm(nn.Module):
    """A layer norm with an optional bias."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))
        self.bias = nn.Parameter(torch.zeros(C)) if bias else None

    @override
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (C,), self.weight, self.bias, 1e-5)


class NanoBlock(nn.Module):
    """nanoGPT's: attention with one matrix for query, key and value, an MLP with the exact GELU."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = NanoNorm(bias), NanoNorm(bias)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(C, 3 * C, bias=bias), "c_proj": nn.Linear(C, C, bias=bias)})
        self.attn.register_buffer("bias", torch.ones(1, 1, T, T).tril())
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(C, 4 * C, bias=bias), "c_proj": nn.Linear(4 * C, C, bias=bias)})

    @override
    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attn["c_attn"](self.ln_1(x)).split(C, dim=2)
        x = x + self.attn["c_proj"](attention(query, key, value))
        out: Tensor = x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return out


class Nano(nn.Module):
    """nanoGPT's model."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(V, C),
                "wpe": nn.Embedding(T, C),
                "h": nn.ModuleList(NanoBlock(bias) for _ in range(L)),
                "ln_f": NanoNorm(bias),
            }
        )
        self.lm_head = nn.Linear(C, V, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        parts: Any = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"]:
            x = block(x)
        out: Tensor = self.lm_head(parts["ln_f"](x))
        return out


class BookNorm(nn.Module):
    """The book's layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(C)), nn.Parameter(torch.zeros(C))

    @override
    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(variance + 1e-5) + self.shift


class BookGELU(nn.Module):
    """The book's GELU, by its tanh form."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class BookAttention(nn.Module):
    """The book's attention, with three matrices."""

    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.W_query, self.W_key, self.W_value = (nn.Linear(C, C, bias=qkv_bias) for _ in range(3))
        self.out_proj = nn.Linear(C, C)
        self.register_buffer("mask", torch.ones(T, T).triu(1))

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_proj(attention(self.W_query(x), self.W_key(x), self.W_value(x)))
        return out


class BookBlock(nn.Module):
    """The book's block."""

    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.att, self.norm1, self.norm2 = BookAttention(qkv_bias), BookNorm(), BookNorm()
        self.ff = nn.Module()
        self.ff.layers = nn.Sequential(nn.Linear(C, 4 * C), BookGELU(), nn.Linear(4 * C, C))

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.att(self.norm1(x))
        layers: Any = self.ff.layers
        out: Tensor = x + layers(self.norm2(x))
        return out


class Book(nn.Module):
    """The book's model."""

    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.tok_emb, self.pos_emb = nn.Embedding(V, C), nn.Embedding(T, C)
        self.trf_blocks = nn.Sequential(*(BookBlock(qkv_bias) for _ in range(L)))
        self.final_norm, self.out_head = BookNorm(), nn.Linear(C, V, bias=False)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_emb(tokens) + self.pos_emb(torch.arange(tokens.shape[1]))
        out: Tensor = self.out_head(self.final_norm(self.trf_blocks(x)))
        return out


def randomised(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def nanogpt_checkpoint(model: nn.Module, *, bias: bool, prefix: str = "") -> dict[str, Any]:
    arguments = {"n_layer": L, "n_head": H, "n_embd": C, "block_size": T, "bias": bias, "vocab_size": V, "dropout": 0.2}
    return {
        "model": {prefix + name: weight for name, weight in model.state_dict().items()},
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "model_args": arguments,
        "iter_num": 7,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "openwebtext", "learning_rate": 6e-4},
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_checkpoint_of_nanogpt_gives_its_logits(tmp_path: Path, prefix: str, *, bias: bool) -> None:
    theirs = randomised(Nano(bias)).eval()
    torch.save(nanogpt_checkpoint(theirs, bias=bias, prefix=prefix), tmp_path / "ckpt.pt")
    ours = load_nanogpt(tmp_path / "ckpt.pt")
    assert (ours.config.dropout, ours.config.tie_weights, ours.training) == (0.2, True, False)
    with torch.no_grad():
        expected = theirs(TOKENS)
        torch.testing.assert_close(ours(TOKENS), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    ours.save_pretrained(tmp_path / "ours")
    assert torch.equal(GPT2Model.from_pretrained(tmp_path / "ours")(TOKENS), ours(TOKENS))


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_model_of_the_book_gives_its_logits(tmp_path: Path, *, qkv_bias: bool, tied: bool, whole: bool) -> None:
    theirs = Book(qkv_bias).eval()
    randomised(theirs)
    if tied:
        theirs.out_head.weight = theirs.tok_emb.weight
    state = theirs.state_dict()
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}} if whole else state, tmp_path / "model.pth")
    ours = load_llms_from_scratch(tmp_path / "model.pth", n_head=H)
    assert (ours.config.tie_weights, ours.config.qkv_bias) == (tied, qkv_bias)
    with torch.no_grad():
        expected = theirs(TOKENS)
        torch.testing.assert_close(ours(TOKENS), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("load", [load_nanogpt, load_llms_from_scratch])
def test_what_is_something_else_is_told(tmp_path: Path, load: Callable[[Path], GPT2Model]) -> None:
    path = tmp_path / "file.pt"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*file\.pt"):
        load(path)
    with pytest.raises(TypeError, match="path must be a path"):
        load(3)  # type: ignore[arg-type]
    for content in ({}, [1], {"model": 3, "model_args": {}}, {"a": torch.zeros(2)}, "text"):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"file\.pt (is not a|should have)"):
            load(path)
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match=r"file\.pt is damaged, or has more than tensors"):
        load(path)


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    checkpoint = nanogpt_checkpoint(Nano(bias=True), bias=True)
    checkpoint["model_args"]["block_size"] = 8
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    with pytest.raises(ValueError, match=r"weights in .*ckpt\.pt do not fit its shape: wpe.weight should be"):
        load_nanogpt(tmp_path / "ckpt.pt")
    checkpoint["model_args"]["n_layer"] = "two"
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    with pytest.raises(TypeError, match="n_layer must be an integer, got 'two'"):
        load_nanogpt(tmp_path / "ckpt.pt")
    torch.save(Book(qkv_bias=False).state_dict(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"n_embd \(24\) must be divisible by n_head \(5\)"):
        load_llms_from_scratch(tmp_path / "model.pth", n_head=5)
