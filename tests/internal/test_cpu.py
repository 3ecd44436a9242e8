"""What is set on a CPU: when, what it does and does not change, and that it can be left out."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2._internal.cpu import _mkl_is_slow, fast_products

LARGE = 64 << 20

# Page faults of allocating and freeing a large block ten times, when training has begun.
FAULTS = f"""
import resource, torch
from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, make_dataloader, train
model = GPT2Model(GPT2Config(vocab_size=10, context_length=4, n_layer=1, n_head=1, n_embd=8))
loader = make_dataloader(range(10), batch_size=1, context_length=4)
train(model, loader, config=TrainingConfig(max_steps=1), device="cpu", progress=False)
torch.zeros({LARGE}, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros({LARGE}, dtype=torch.uint8).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(switch: str | None) -> int:
    environment = {} if switch is None else {"TINYGPT2_KEEP_MEMORY": switch}
    command = [sys.executable, "-c", FAULTS]
    result = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment)
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_training_keeps_memory_unless_told_not_to() -> None:
    pages = LARGE // 4096
    assert faults("0") > 8 * pages  # given back and faulted in again, each time
    assert faults(None) < 2 * pages  # once more at most, where the freed block is not found at first


# --- products of matrices ---

ZEN_5 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
flags\t\t: fpu avx2 avx512f avx512_bf16

processor\t: 1
"""


@pytest.mark.parametrize(
    ("was", "is_", "expected"),
    [
        ("", "", True),
        ("AuthenticAMD", "GenuineIntel", False),
        (": 26", ": 25", True),  # Zen 4; a Zen 3 has no AVX-512
        ("avx512f", "avx", False),
        ("avx512_bf16", "amx_tile", False),
        (ZEN_5, "", False),
        (ZEN_5, "Processor\t: ARMv7\n", False),
    ],
)
def test_processors_are_told_apart(was: str, is_: str, expected: bool, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(ZEN_5.replace(was, is_) if was else ZEN_5, encoding="utf-8")
    assert _mkl_is_slow(file) == expected
    assert not _mkl_is_slow(tmp_path / "missing")


MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def precision() -> object:
    return MATMUL.fp32_precision


@pytest.fixture
def slow_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYGPT2_ONEDNN", raising=False)
    monkeypatch.setattr("tinygpt2._internal.cpu._mkl_is_slow", lambda _: True)


@pytest.mark.usefixtures("slow_mkl")
def test_the_setting_lasts_as_long_as_the_block_and_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision() == "none"
    with fast_products():
        assert precision() == "bf16"
        with fast_products():
            assert precision() == "bf16"
        assert precision() == "bf16"
    assert precision() == "none"
    with pytest.raises(KeyError), fast_products():
        raise KeyError
    assert precision() == "none"
    monkeypatch.setenv("TINYGPT2_ONEDNN", "0")
    with fast_products():
        assert precision() == "none"


@pytest.mark.usefixtures("slow_mkl")
def test_a_precision_of_the_users_own_is_left_alone() -> None:
    MATMUL.fp32_precision = "ieee"
    try:
        with fast_products():
            assert precision() == "ieee"
        assert precision() == "ieee"
    finally:
        MATMUL.fp32_precision = "none"


@pytest.mark.parametrize("shape", [(1, 768, 2304), (7, 65, 31), (256, 768, 768), (256, 128, 4099), (300, 3072, 64)])
def test_products_are_as_exact_as_before(shape: tuple[int, int, int]) -> None:
    """Products in bf16 would be a thousand times less exact than this allows."""
    n, inner, m = shape
    left, right, bias = torch.randn(n, inner), torch.randn(m, inner), torch.randn(m)
    exact = left.double() @ right.double().T
    with fast_products():
        products = {
            "forward": (left @ right.T, exact),
            "of the weight": (exact.float().T @ left, exact.T @ left.double()),
            "linear": (torch.nn.functional.linear(left, right, bias), exact + bias),
            "batch": (torch.bmm(left.expand(3, -1, -1), right.T.expand(3, -1, -1))[2], exact),
        }
    for name, (actual, expected) in products.items():
        assert (actual - expected).abs().max() < 1e-5 * expected.abs().max(), name
