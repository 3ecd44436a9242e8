"""The command ``tinygpt2 doctor``."""

from typing import Any

import pytest
import torch

from tinygpt2.cli import diagnosis
from tinygpt2.cli.main import main
from tinygpt2.kernels.cross_entropy import linear_cross_entropy
from tinygpt2.kernels.switch import enabled
from tinygpt2.model import objective


def test_a_device_that_computes_what_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"torch {torch.__version__}" in said
    for name in ("loss", "gradients", "training", "generation"):
        assert f"\n{name:14}  right: differs by " in said
    assert " GFLOP/s in training: " in said
    assert said.endswith("\ncpu computes what it should\n")


def test_a_kernel_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(*arguments: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        return linear_cross_entropy(*arguments, **options) * (1.02 if enabled("cross_entropy") else 1.0)

    monkeypatch.setattr(objective, "linear_cross_entropy", wrong)
    assert main(["doctor", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert f"{'loss':14}  wrong: differs by 0.02\n" in said
    assert f"{'generation':14}  right" in said
    assert "cpu computes other numbers than it should: loss, gradients, training. Please report this\n" in said


def test_a_number_that_is_none_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_difference", lambda *_: float("nan"))
    found = {finding.name: finding.right for finding in diagnosis.examine(torch.device("cpu"))}
    assert found == {"loss": False, "gradients": False, "training": False, "generation": True}


def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "tpu"]) == 1
    assert "there is no device 'tpu' here; available: " in capsys.readouterr().err
