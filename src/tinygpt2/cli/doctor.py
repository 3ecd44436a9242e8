"""The command ``tinygpt2 doctor``."""

import argparse
from typing import TYPE_CHECKING

from tinygpt2.cli.options import Commands, add_command, add_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_PACKAGES = ("tinygpt2", "torch", "numpy", "tiktoken", "transformers")


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "doctor",
        doctor_command,
        "check that a device computes what it should",
        "Compares a few training steps and a generation on the device with the plain computation on the CPU, and says "
        "how fast it is, and what a report of a fault needs. The exit code is 1 if it computes other numbers.",
    )
    add_option(parser, "--device", "device to check (default: the one that would be used)", metavar="NAME")


def doctor_command(options: argparse.Namespace) -> int:
    """Prints what this machine is, and whether a device computes what it should."""
    from tinygpt2._internal.devices import choose_device
    from tinygpt2.cli.diagnosis import examine

    device = choose_device(options.device)
    for name, value in _machine(device):
        print(f"{name:14}  {value}", flush=True)
    wrong = []
    for finding in examine(device):
        judged = "right" if finding.right else "wrong"
        print(f"{finding.name:14}  {judged}: differs by {finding.difference:.1g}", flush=True)
        if not finding.right:
            wrong.append(finding.name)
    print(f"{'speed':14}  {_speed(device)}")
    if wrong:
        advice = "" if device.type == "cpu" else "; train with --device cpu"
        print(f"{device} computes other numbers than it should: {', '.join(wrong)}. Please report this{advice}")
        return 1
    print(f"{device} computes what it should")
    return 0


def _machine(device: "torch.device") -> "Iterator[tuple[str, str]]":
    """Yields what a report of a fault needs to say, and what a run would do here."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from tinygpt2._internal.devices import computes_bf16
    from tinygpt2.recipe.memory import free_memory

    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    yield "versions", f"Python {platform.python_version()}, {', '.join(found)}"
    yield "machine", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield "threads", f"{torch.get_num_threads()}"
    yield "device", _described(device)
    yield "free memory", f"{free_memory(device) / 1e9:.1f} GB"
    bf16 = device.type == "cuda" and computes_bf16(device)
    yield "precision", "bf16 where it is enough, as the device computes in it" if bf16 else "fp32"


def _described(device: "torch.device") -> str:
    import torch

    if device.type != "cuda":
        return str(device)
    major, minor = torch.cuda.get_device_capability(device)
    return f"{device}, {torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"


def _speed(device: "torch.device") -> str:
    from tinygpt2.recipe.rules import operations_of_token
    from tinygpt2.recipe.speed import SMALL, first_speed

    speed = first_speed(device)
    tokens = speed / operations_of_token(SMALL)
    return f"{speed / 1e9:,.0f} GFLOP/s in training: {tokens:,.0f} tokens a second of a model of width {SMALL.n_embd}"
