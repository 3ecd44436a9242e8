"""Which precision a device computes in: bf16 only where it has instructions for it."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from tinygpt2._internal import devices
from tinygpt2._internal.devices import autocast, choose_device

CARDS = {"V100": (7, 0), "T4": (7, 5), "A100": (8, 0), "RTX 3090": (8, 6), "H100": (9, 0), "B200": (10, 0)}


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The compute capabilities of the GPUs that PyTorch reports; each claims to support bf16, as emulation lets it."""
    found: list[tuple[int, int]] = []

    def properties(device: torch.device | int | None = None) -> SimpleNamespace:
        index = device if isinstance(device, int) else torch.device("cuda" if device is None else device).index
        major, minor = found[index or 0]
        return SimpleNamespace(major=major, minor=minor)

    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    devices._warn_of_emulation.cache_clear()
    return found


def uses_bf16(device: torch.device, precision: str) -> bool:
    return bool(autocast(device, precision)._enabled)


@pytest.mark.parametrize("name", CARDS)
def test_auto_is_bf16_from_compute_capability_8_on(cards: list[tuple[int, int]], name: str) -> None:
    cards.append(CARDS[name])
    assert uses_bf16(torch.device("cuda"), "auto") is (CARDS[name] >= (8, 0))
    assert uses_bf16(torch.device("cuda:0"), "fp32") is False


def test_each_of_several_cards_has_its_own_precision(cards: list[tuple[int, int]]) -> None:
    cards += [CARDS["T4"], CARDS["A100"]]
    assert [uses_bf16(torch.device("cuda", i), "auto") for i in (0, 1)] == [False, True]


def test_bf16_that_was_asked_for_is_given_and_the_emulation_told_once(cards: list[tuple[int, int]]) -> None:
    cards += [CARDS["T4"], CARDS["A100"]]
    with pytest.warns(RuntimeWarning, match=r'cuda:0 has compute capability 7\.5 and only emulates bf16.*"fp32"'):
        assert uses_bf16(torch.device("cuda:0"), "bf16") is True
    with warnings.catch_warnings(action="error"):
        assert uses_bf16(torch.device("cuda:0"), "bf16") is True
        assert uses_bf16(torch.device("cuda:1"), "bf16") is True


@pytest.mark.parametrize("supported", [False, True])
def test_pytorch_answers_for_amds_gpus(
    monkeypatch: pytest.MonkeyPatch, cards: list[tuple[int, int]], *, supported: bool
) -> None:
    cards.append((9, 0))  # gfx900, which is no H100
    monkeypatch.setattr(torch.version, "hip", "7.1")

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert uses_bf16(torch.device("cuda"), "auto") is supported


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_compute_in_bf16_only_if_asked(device: str) -> None:
    used = [uses_bf16(torch.device(device), precision) for precision in ("auto", "fp32", "bf16")]
    assert used == [False, False, True]


@pytest.mark.parametrize("device", ["x", "cuda:99", "", -1, 1.5, True, 2**40, 2**63, b"cpu", object()])
def test_what_is_no_device_here_is_refused_with_those_that_are(device: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"device .*cpu"):
        choose_device(device)  # type: ignore[arg-type]
