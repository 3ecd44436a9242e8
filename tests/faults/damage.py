"""Damages checkpoints, by accident and by malice, and loads them: equal tensors, or an error of ours."""

import collections
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinygpt2 import (
    CheckpointError,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    TrainingConfig,
    TrainState,
    make_dataloader,
    make_optimizer,
    train,
)
from tinygpt2.data.loader import Loader
from tinygpt2.data.passes import Passes
from tinygpt2.training.checkpoints.format import read_checkpoint
from tinygpt2.training.checkpoints.restore import compare, optimizer_record, restore
from tinygpt2.training.optimizers import checked_optimizer

FILES = ("config.json", "model.safetensors", "training_state.safetensors", "training.json")
TENSORS = FILES[1:3]
JSONS = (FILES[0], FILES[3])
MANIFEST = "manifest.json"
STEPS = 3
MEMORY = 1 << 30  # bytes more than before that loading may take
FORBIDDEN = ("pickle.find_class", "exec", "compile", "os.system", "subprocess.Popen", "os.exec", "import")

Damage = Callable[[Path, random.Random], bool]
"""Damages a checkpoint; returns whether loading it must fail. If not, it may also give what was there before."""

SHAPE = GPT2Config(vocab_size=11, context_length=4, n_layer=1, n_head=2, n_embd=8, dropout=0.1)


CONFIG = TrainingConfig(max_steps=STEPS, eval_batches=1)


def data(seed: int) -> Loader:
    return make_dataloader([i % 11 for i in range(100)], batch_size=4, context_length=4, shuffle=True, seed=seed)


def make_checkpoint(directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = GPT2Model(SHAPE)
    train(model, data(seed), config=CONFIG, device="cpu", checkpoint_dir=directory, progress=False)
    return directory / f"checkpoint-{STEPS}"


def load(path: Path) -> dict[str, Tensor]:
    """Does all that resuming does, and returns all tensors that this leaves, with the rest as bytes."""
    model = GPT2Model(SHAPE)
    state = TrainState(model, checked_optimizer(make_optimizer, model, CONFIG), CONFIG, total_steps=STEPS)
    made = optimizer_record(state)
    identity = {"training": Passes(data(0), name="train_loader", seed=0).identity(), "validation": None}
    checkpoint = read_checkpoint(path, STEPS)
    compare(checkpoint, state, made, identity, allow_changes=False)
    restore(state, checkpoint, made)
    record = checkpoint.record
    groups = state.optimizer.state_dict()["param_groups"]
    rest = json.dumps([
        asdict(state.progress), vars(state.history), record.total_steps, record.loader, record.callbacks, groups
    ])  # fmt: skip
    moments = {
        f"{i}.{key}": value
        for i, values in state.optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }
    return dict(model.state_dict()) | moments | {"rest": torch.frombuffer(bytearray(rest.encode()), dtype=torch.uint8)}


def sign(path: Path) -> None:
    """Writes a manifest that fits the files, as somebody would who means harm."""
    content = {}
    for name in FILES:
        data = (path / name).read_bytes()
        content[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / MANIFEST).write_text(json.dumps({"files": content}), encoding="utf-8")


# What accidents do. Nobody signs.


def flip_a_bit(path: Path, chance: random.Random) -> bool:
    file = path / chance.choice((*FILES, MANIFEST))
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return False


def truncate(path: Path, chance: random.Random) -> bool:
    file = path / chance.choice((*FILES, MANIFEST))
    os.truncate(file, chance.randrange(file.stat().st_size))
    return False  # a manifest without its last newline is whole


def append(path: Path, chance: random.Random) -> bool:
    with (path / chance.choice(FILES)).open("ab") as file:
        file.write(chance.randbytes(chance.randint(1, 5000)))
    return True


def zero_a_block(path: Path, chance: random.Random) -> bool:
    """What a power cut leaves on some file systems."""
    file = path / chance.choice((*FILES, MANIFEST))
    data = bytearray(file.read_bytes())
    begin = chance.randrange(len(data))
    end = min(len(data), begin + 512)
    data[begin:end] = bytes(end - begin)
    file.write_bytes(data)
    return False


def copy_within(path: Path, chance: random.Random) -> bool:
    """Bytes of one place in the place of others."""
    file, source = path / chance.choice(FILES), path / chance.choice(FILES)
    data, other = bytearray(file.read_bytes()), source.read_bytes()
    n = min(len(data), len(other), chance.randint(1, 600))
    to, begin = chance.randrange(len(data) - n + 1), chance.randrange(len(other) - n + 1)
    data[to : to + n] = other[begin : begin + n]
    file.write_bytes(data)
    return False


def splice(path: Path, chance: random.Random) -> bool:
    """A file of another checkpoint of the same shape."""
    name = chance.choice((*FILES[1:], MANIFEST))
    shutil.copy(path.parent / "other" / f"checkpoint-{STEPS}" / name, path / name)
    return True


def lose_a_file(path: Path, chance: random.Random) -> bool:
    (path / chance.choice((*FILES, MANIFEST))).unlink()
    return True


def empty_a_file(path: Path, chance: random.Random) -> bool:
    os.truncate(path / chance.choice((*FILES, MANIFEST)), 0)
    return True


def exchange_files(path: Path, chance: random.Random) -> bool:
    first, second = (path / name for name in chance.sample(FILES, 2))
    spare = path / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    return True


def rename_checkpoint(path: Path, _: random.Random) -> bool:
    """The name says another step than the file."""
    content = json.loads((path / "training.json").read_text(encoding="utf-8"))
    content["progress"]["step"] += 1
    (path / "training.json").write_text(json.dumps(content), encoding="utf-8")
    sign(path)
    return True


# What malice does. The manifest fits.


def link_out(path: Path, chance: random.Random) -> bool:
    """A link to a file outside, whose content would even be right."""
    file = path / chance.choice((*FILES, MANIFEST))
    outside = path.parent / "outside"
    file.rename(outside)
    file.symlink_to(outside)
    return True


def not_a_file(path: Path, chance: random.Random) -> bool:
    file = path / chance.choice((*FILES, MANIFEST))
    file.unlink()
    if chance.random() < 0.5:
        file.mkdir()
    else:
        os.mkfifo(file)
    return True


class _Bomb:
    """Unpickled, it leaves a trace."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch /tmp/tinygpt2-was-here",)


def pickled(path: Path, chance: random.Random) -> bool:
    file = path / chance.choice((*FILES, MANIFEST))
    file.write_bytes(pickle.dumps(_Bomb()))
    if file.name != MANIFEST:
        sign(path)
    return True


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _with_header(file: Path, text: str, body: bytes) -> None:
    encoded = text.encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


def hostile_header(path: Path, chance: random.Random) -> bool:
    """A header that asks for much, overlaps, says another type, twice the same, or nonsense."""
    file = path / chance.choice(TENSORS)
    header, body = _header(file.read_bytes())
    name = chance.choice([key for key in header if key != "__metadata__" and header[key]["shape"]])
    entry = header[name]
    kind = chance.randrange(9)
    text = None
    if kind == 0:
        file.write_bytes(struct.pack("<Q", chance.choice([2**63, 2**40, 10**8, 2**64 - 1])) + file.read_bytes()[8:])
    elif kind == 1:
        entry["shape"] = [2**62, 4]
    elif kind == 2:
        entry["data_offsets"] = [0, 2**62]
    elif kind == 3:
        others = {"F64", "I32", "BF16", "U8", "F8_E4M3", "NONE"} - {entry["dtype"]}
        entry["dtype"] = chance.choice(sorted(others))
    elif kind == 4:
        text = json.dumps(header)[:-1] + f', "{name}": {json.dumps(entry)}}}'
        text = text.replace(f'"{name}"', '"wrong"', 1)
    elif kind == 5:
        entry["data_offsets"] = [value + chance.choice([-4, 4, -1]) for value in entry["data_offsets"]]
    elif kind == 6:
        header["../../escape"] = header.pop(name)
    elif kind == 7:
        entry["shape"] = list(reversed(entry["shape"])) if len(set(entry["shape"])) > 1 else [-1, *entry["shape"]]
    else:
        text = "[" * 100_000
    if kind:
        _with_header(file, json.dumps(header) if text is None else text, body)
    sign(path)
    return True


def not_finite(path: Path, chance: random.Random) -> bool:
    file = path / chance.choice(TENSORS)
    data = bytearray(file.read_bytes())
    header, body = _header(bytes(data))
    name = chance.choice([key for key, value in header.items() if value.get("dtype") == "F32"])
    at = len(data) - len(body) + header[name]["data_offsets"][0]
    data[at : at + 4] = struct.pack("<f", chance.choice([float("nan"), float("inf"), -float("inf")]))
    file.write_bytes(data)
    sign(path)
    return True


JSON_BOMBS: tuple[str, ...] = (
    "[" * 1_000_000,
    '{"a":' * 500_000,
    "9" * 1_000_000,
    '{"step": ' + "9" * 100_000 + "}",
    '"' + "x" * 10_000_000,
    "{" + ",".join(f'"{i}":{{}}' for i in range(200_000)) + "}",
    " " * 40_000_000,
    "null",
    "\ufeff{}",
    "",
)


def json_bomb(path: Path, chance: random.Random) -> bool:
    file = path / chance.choice((*JSONS, MANIFEST))
    file.write_text(chance.choice(JSON_BOMBS), encoding="utf-8")
    if file.name != MANIFEST:
        sign(path)
    return True


WRONG_VALUES: tuple[object, ...] = (None, -1, "x", [], True, 1e400, [1], "9" * 50, 1.5)


def wrong_value(path: Path, chance: random.Random) -> bool:
    """A value of another kind in ``training.json`` or ``config.json``, or a key that is missing or comes twice."""
    name = chance.choice(JSONS)
    file = path / name
    content = json.loads(file.read_text(encoding="utf-8"))
    part, keys = content, ["vocab_size", "n_positions", "n_layer", "n_head", "n_embd"]
    if name == "training.json":
        place = chance.choice([None, "progress", "optimizer"])
        part = content if place is None else content[place]
        keys = ["step", "epoch", "items", "tokens_seen"] if place == "progress" else list(part)
    key = chance.choice(keys)
    twice = f'{json.dumps(content)[:-1]}, "{key}": {json.dumps(part[key])}}}'
    kind = chance.randrange(3 if part is content else 2)
    if kind == 0:
        part[key] = chance.choice([wrong for wrong in WRONG_VALUES if wrong != part[key]])
    elif name == "config.json":
        part[key] = 10**9  # one that is not there would have the default of GPT-2
    else:
        del part[key]
    file.write_text(twice if kind == 2 else json.dumps(content), encoding="utf-8")
    sign(path)
    return True


def wrong_manifest(path: Path, chance: random.Random) -> bool:
    content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    name = chance.choice(FILES)
    wrong: object = chance.choice([None, [], {"size": -1}, {"size": "1", "sha256": ""}, {"sha256": "0" * 64}, 7])
    content["files"][name] = wrong
    if chance.random() < 0.2:
        content = chance.choice([{"files": wrong}, {"files": [content]}, {}])
    (path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return True


KINDS: dict[str, tuple[int, Damage]] = {  # how often, of a hundred
    "a flipped bit": (22, flip_a_bit),
    "truncation": (10, truncate),
    "bytes appended": (5, append),
    "a block of zeros": (8, zero_a_block),
    "bytes copied elsewhere": (8, copy_within),
    "a file of another checkpoint": (6, splice),
    "a file missing": (3, lose_a_file),
    "an empty file": (3, empty_a_file),
    "two files exchanged": (3, exchange_files),
    "another step than the name says": (2, rename_checkpoint),
    "a link out of the directory": (3, link_out),
    "a directory or pipe for a file": (2, not_a_file),
    "a pickle under a file's name": (4, pickled),
    "a hostile safetensors header": (8, hostile_header),
    "NaN or infinity, signed": (4, not_finite),
    "a JSON bomb": (1, json_bomb),
    "a wrong JSON value, signed": (5, wrong_value),
    "a wrong manifest": (3, wrong_manifest),
}


@dataclass
class DamageReport:
    """What loading damaged checkpoints did, by the kind of damage."""

    files: collections.Counter[str] = field(default_factory=collections.Counter)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    identical: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    memory: int = 0
    slowest: float = 0.0


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def _outcome(path: Path, expected: dict[str, Tensor], *, must_fail: bool) -> str:
    """Returns "refused", "identical", or what else came of loading a checkpoint."""
    try:
        loaded = load(path)
    except (CheckpointError, IncompatibleRunError):  # what is signed may be a checkpoint of another run
        return "refused"
    except BaseException as error:  # noqa: BLE001 - anything else is what this looks for
        return repr(error)
    return "identical" if _equal(loaded, expected) and not must_fail else "loaded"


def damage_files(work: Path, files: int, seed: int = 0) -> DamageReport:
    """Damages a checkpoint so often, each time a whole one, and loads it."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    whole = make_checkpoint(work / "whole", 0)
    make_checkpoint(work / "other", 1)
    expected = load(whole)
    path = work / whole.name
    report = DamageReport()
    ran: list[str] = []
    watching = False

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in FORBIDDEN:
            ran.append(f"{event} {arguments[:1]!r}")

    sys.addaudithook(audit)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names, weights = list(KINDS), [often for often, _ in KINDS.values()]
    for i in range(files):
        kind = names[i] if i < len(names) else chance.choices(names, weights)[0]
        _clear(path)
        shutil.copytree(whole, path)
        must_fail = KINDS[kind][1](path, chance)
        report.files[kind] += 1
        began = time.perf_counter()
        watching = True
        outcome = _outcome(path, expected, must_fail=must_fail)
        watching = False
        report.slowest = max(report.slowest, time.perf_counter() - began)
        getattr(report, outcome if outcome in ("refused", "identical") else "wrong")[kind] += 1
        if outcome not in ("refused", "identical"):
            report.failures.append(f"{kind} (file {i}): {outcome}")
        if ran:
            report.failures.append(f"{kind} (file {i}) ran {ran}")
            ran.clear()
    report.memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if report.memory > MEMORY:
        report.failures.append(f"{report.memory:,} bytes of memory")
    if Path("/tmp/tinygpt2-was-here").exists():  # noqa: S108 - what the pickle would make
        report.failures.append("a pickle ran")
    return report


def _clear(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    (path.parent / "outside").unlink(missing_ok=True)
