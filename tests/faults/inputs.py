"""Damages single files that somebody else may have written, and reads them: the right value, or an error of ours."""

import base64
import collections
import faulthandler
import json
import math
import os
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import tiktoken
import torch

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TokenFile,
    Tokenizer,
    TrainingHistory,
    gpt2_tokenizer,
    load_tokenizer,
    tokenize_to_file,
    trim_vocabulary,
)
from tinygpt2.cli.options import read_options, save_options
from tinygpt2.cli.train_options import RANGES, TrainOptions, to_save
from tinygpt2.formats.safetensors import read_safetensors
from tinygpt2.tokenizers.foreign import as_tokenizer
from tinygpt2.tokenizers.protocol import encoded
from tinygpt2.tokenizers.storage import TOKENIZER_FILES, save_tokenizer, tokenizer_files
from tinygpt2.tokenizers.tokenizer_file import TOKENIZER_FILE

MEMORY = 1 << 30  # bytes more than before that reading may take
HANG = 120  # seconds for one file, after which the process ends with a traceback

TEXT = "Byte pairs, byte by byte:\n字节对 🦊 don't 12 "

# --- what is read, and the check that it is right ---


Parts = tuple[bytes, bytes, bytes]
"""The bytes before the JSON in a file, the JSON, and the bytes after it."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: The name of such a file.
        make: Writes a few whole ones into a directory, each under another name.
        read: Reads one; raises `AssertionError` if what it reads is not what is there.
        split: Splits its content at its JSON.
        join: Joins the parts of a content whose JSON has another length.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], None]
    split: Callable[[bytes], Parts] = lambda content: (b"", content, b"")
    join: Callable[[bytes, bytes, bytes], bytes] = lambda before, text, after: before + text + after


def make_tokenizers(directory: Path) -> None:
    trimmed = trim_vocabulary(gpt2_tokenizer(), TEXT * 3)
    tokenizers: list[Tokenizer] = [CharTokenizer.from_text(TEXT), trimmed, gpt2_tokenizer()]
    for i, tokenizer in enumerate(tokenizers):
        save_tokenizer(tokenizer, directory)
        (directory / TOKENIZER_FILE).rename(directory / str(i))
        for name in TOKENIZER_FILES:  # theirs
            (directory / name).unlink(missing_ok=True)


def read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path.parent)
    content = json.loads(path.read_bytes())
    if isinstance(tokenizer, CharTokenizer):
        assert content["type"] == "characters"
        assert tokenizer.characters == content["characters"]
    elif content["type"] == "byte pairs":
        assert isinstance(tokenizer, tiktoken.Encoding)
        tokens = [base64.b64decode(token) for token in content["tokens"]]
        assert [tokenizer.decode_single_token_bytes(i) for i in range(tokenizer.n_vocab - 1)] == tokens
    else:
        assert tokenizer is gpt2_tokenizer()
    assert tokenizer_files(tokenizer)
    for text in (TEXT, content.get("name", "")):
        try:
            ids = encoded(tokenizer, text)
        except ValueError:  # a character that is not in the vocabulary, or a pattern that the probes did not find out
            continue
        assert all(0 <= i < tokenizer.n_vocab for i in ids)
        assert isinstance(tokenizer.decode(ids), str)


def make_their_tokenizers(directory: Path) -> None:
    trimmed = trim_vocabulary(gpt2_tokenizer(), TEXT * 3)
    for i, tokenizer in enumerate([CharTokenizer.from_text(TEXT), trimmed]):
        (directory / str(i)).write_bytes(tokenizer_files(as_tokenizer(tokenizer))["tokenizer.json"])


def read_their_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path.parent)
    content = json.loads(path.read_bytes())
    vocabulary = content["model"]["vocab"]
    for text in (TEXT, *(token["content"] for token in content.get("added_tokens", []))):
        try:
            ids = encoded(tokenizer, text)
        except Exception:  # noqa: BLE001, S112 - for a missing token; a panic is another kind
            continue
        assert all(0 <= i < tokenizer.n_vocab for i in ids)
        assert isinstance(tokenizer.decode(ids), str)
    if isinstance(tokenizer, CharTokenizer):
        assert all(vocabulary[character] == i for i, character in enumerate(tokenizer.characters))


def make_histories(directory: Path) -> None:
    TrainingHistory().save(directory / "0")
    long = TrainingHistory()
    for i in range(20):
        long.append(
            step=i * 7, epoch=i / 3, tokens_seen=i * 999, train_loss=9 / (i + 1), val_loss=None, learning_rate=1e-4
        )
    long.save(directory / "1")
    losses = [10.8, math.nan], [None, math.inf]
    TrainingHistory([0, 10], [0.0, 0.5], [0, 2560], *losses, [0.0, 4e-4]).save(directory / "2")


def read_history(path: Path) -> None:
    history = TrainingHistory.load(path)
    expected = json.loads(path.read_bytes())
    absent = {"train_bits_per_byte", "val_bits_per_byte", "seconds", "stopped"}  # in older files
    assert asdict(history).keys() - absent <= expected.keys() <= asdict(history).keys()
    assert history.stopped == expected.pop("stopped", None)
    for name in expected:
        values = getattr(history, name)
        there = [value if value is None else float(value) + 0.0 for value in expected[name]]
        assert repr([value if value is None else float(value) for value in values]) == repr(there), name
    assert history.steps == sorted(set(history.steps))
    again = path.with_name("again")
    history.save(again)
    assert repr(TrainingHistory.load(again)) == repr(history)


def make_options(directory: Path) -> None:
    save_options(directory / "0", to_save(TrainOptions()))
    given = TrainOptions(
        files=("a.txt", "书.txt"), max_steps=7, dropout=0.0, compile=True, sample_prompt="从前", learning_rate=1e-3
    )
    save_options(directory / "1", to_save(given))


def read_saved_options(path: Path) -> None:
    options = read_options(path, RANGES)
    expected = json.loads(path.read_bytes())
    assert options.keys() == expected.keys()
    for name, value in options.items():
        plain = list(value) if isinstance(value, tuple) else value
        assert plain == (float(expected[name]) if isinstance(value, float) else expected[name]), name
        assert value is None or isinstance(value, bool) == (name in {"compile", "spelling"})
    TrainOptions(**options)


def make_token_files(directory: Path) -> None:
    tokenize_to_file([TEXT * 20], directory / "0")
    tokenize_to_file([TEXT], directory / "1", tokenizer=CharTokenizer.from_text(TEXT))


def read_tokens(path: Path) -> None:
    tokens = TokenFile(path)
    body = path.read_bytes()[512:]
    dtype = "<u2" if tokens.n_vocab <= 2**16 else "<u4"
    assert np.array_equal(tokens.tokens, np.frombuffer(body, dtype))
    assert len(tokens) > 0
    tokens.verify()


def make_tensors(directory: Path) -> None:
    model = GPT2Model(GPT2Config(vocab_size=11, context_length=4, n_layer=1, n_head=2, n_embd=8))
    model.save_pretrained(directory)
    (directory / "model.safetensors").rename(directory / "0")
    (directory / "config.json").unlink()
    several = {
        "a": torch.arange(6).reshape(2, 3),
        "b": torch.tensor(0.5).bfloat16(),
        "c": torch.zeros(0, 4),
        "d": torch.ones(7).bool(),
    }
    safetensors.torch.save_file(several, directory / "1")


def read_tensors(path: Path) -> None:
    tensors = read_safetensors(path)
    expected = safetensors.torch.load(path.read_bytes())
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert tensor.shape == expected[name].shape
        assert bytes(tensor.reshape(-1).view(torch.uint8)) == bytes(expected[name].reshape(-1).view(torch.uint8))


def make_models(directory: Path) -> None:
    model = GPT2Model(GPT2Config(vocab_size=11, context_length=4, n_layer=1, n_head=2, n_embd=8))
    model.save_pretrained(directory)
    (directory / "config.json").rename(directory / "0")


def read_model(path: Path) -> None:
    model = GPT2Model.from_pretrained(path.parent)
    content = json.loads(path.read_bytes())
    for ours, theirs in (("vocab_size", "vocab_size"), ("context_length", "n_positions"), ("n_embd", "n_embd")):
        assert getattr(model.config, ours) == content[theirs]
    assert model(torch.tensor([[1, 2]])).shape == (1, 2, 11)


def _split_tokens(content: bytes) -> Parts:
    return content[:16], content[16:512].rstrip(), content[512:]


def _join_tokens(before: bytes, text: bytes, after: bytes) -> bytes:
    return before + text.ljust(512 - len(before)) + after


def _split_tensors(content: bytes) -> Parts:
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return content[:8], content[8:end], content[end:]


def _join_tensors(_: bytes, text: bytes, after: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + after


KINDS = {
    "tokenizers": Kind(TOKENIZER_FILE, make_tokenizers, read_tokenizer),
    "tokenizers of others": Kind("tokenizer.json", make_their_tokenizers, read_their_tokenizer),
    "histories": Kind("history.json", make_histories, read_history),
    "options": Kind("options.json", make_options, read_saved_options),
    "token files": Kind("corpus.tokens", make_token_files, read_tokens, _split_tokens, _join_tokens),
    "safetensors": Kind("model.safetensors", make_tensors, read_tensors, _split_tensors, _join_tensors),
    "models' config.json": Kind("config.json", make_models, read_model),
}


# --- what happens to the bytes ---

Damage = Callable[[bytes, random.Random, list[bytes]], bytes]
"""Returns a content damaged; the list has the contents of whole files of the same kind."""


def flip_bits(content: bytes, chance: random.Random, _: list[bytes]) -> bytes:
    data = bytearray(content)
    for _bit in range(chance.choice((1, 1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def truncate(content: bytes, chance: random.Random, _: list[bytes]) -> bytes:
    return content[: chance.randrange(len(content))]


def insert(content: bytes, chance: random.Random, _: list[bytes]) -> bytes:
    at = chance.choice((0, chance.randrange(len(content)), len(content)))
    new = chance.choice(
        (
            b"0",
            b"9" * 30,
            b"[",
            b"]",
            b"{",
            b'"',
            b",",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
            b" " * 5000,
            chance.randbytes(9),
        )
    )
    return content[:at] + new + content[at:]


def splice(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Part of this file, and part of another."""
    other = chance.choice(others)
    begin, end = chance.randrange(len(content)), chance.randrange(len(content))
    first = chance.randrange(len(other))
    return content[:begin] + other[first : first + chance.randint(1, 600)] + content[max(begin, end) :]


def zero_a_block(content: bytes, chance: random.Random, _: list[bytes]) -> bytes:
    begin = chance.randrange(len(content))
    end = min(len(content), begin + 512)
    return content[:begin] + bytes(end - begin) + content[end:]


BYTES: tuple[Damage, ...] = (flip_bits, truncate, insert, splice, zero_a_block)

# --- what happens to the JSON ---

# Written as they are: most are nothing that Python would write.
VALUES = (
    "null", "true", "false", "0", "-0", "1", "-1", "2", "1.0", "0.5", "-0.0", "1e400", "-1e400", "NaN", "Infinity",
    "1e-400", "255", "65536", "65537", "2147483647", "2147483648", "4294967296", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1000000000000037", "1" + "0" * 30, "1" + "0" * 400, "9" * 5000,
    "-" + "9" * 5000, "1_000", "0x10", "٣", '""', '"no"', '"true"', '"1"', '"\\ud800"', '"\\u0000"', '"\ufeff"',
    '"' + "x" * 100_000 + '"', '"gpt2"', '"characters"',
    '"byte pairs"', '"x*"', '"|a"', '"(?=a)"', '"(?<=a)b|(?s)."', '"(?:a|aa)+(?=q)|(?s)."', '"("',
    '"(a{1000}){1000}"', '"\\\\b"',
    '"' + "(?:" * 3000 + '"', '"F32"', '"F8_E4M3"', '"<u4"', '"<f8"', '"object"', '"../../escape"',
    "[]", "{}", "[null]", "[1]", "[0, 9223372036854775807]",
    "[4294967296, 4294967296, 4294967296]", '["a"]', '{"a": 1}', "[[[[[]]]]]",
    "[" * 90 + "]" * 90, "[" * 200 + "]" * 200, "[" * 100_000 + "]" * 100_000,
    '{"a":' * 50_000, "[" + "0," * 100_000 + "0]",
)  # fmt: skip


def _places(content: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - JSON
    """Returns each container in JSON with each of its keys or indices."""
    found, waiting = [], [content]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        found += [(container, key) for key in keys[:50]]  # a vocabulary has thousands, which are all alike
        waiting += [container[key] for key in keys[:50] if isinstance(container[key], dict | list)]
    return found


def _with_marks(content: Any, values: Mapping[str, str]) -> bytes:  # noqa: ANN401 - JSON
    """Returns JSON in which each string that is a key of ``values`` is replaced by the text there."""
    text = json.dumps(content, ensure_ascii=False)
    for mark, value in values.items():
        text = text.replace(f'"{mark}"', value)
    return text.encode()


def replace_a_value(text: bytes, chance: random.Random) -> bytes:
    content = json.loads(text)
    for _ in range(chance.choice((1, 1, 1, 2))):
        container, key = chance.choice(_places(content))
        container[key] = f"mark{chance.randrange(len(VALUES))}"
    return _with_marks(content, {f"mark{i}": value for i, value in enumerate(VALUES)})


def lose_a_value(text: bytes, chance: random.Random) -> bytes:
    content = json.loads(text)
    container, key = chance.choice(_places(content))
    del container[key]
    return _with_marks(content, {})


def repeat_a_value(text: bytes, chance: random.Random) -> bytes:
    """A key twice, or an item of a list many times."""
    content = json.loads(text)
    container, key = chance.choice(_places(content))
    if isinstance(container, list):
        container[key:key] = [container[key]] * chance.choice((1, 2, 1000))
        return _with_marks(content, {})
    value = json.dumps(container[key], ensure_ascii=False)
    container[key] = "mark"
    return _with_marks(content, {"mark": f"{value}, {json.dumps(key)}: {value}"})


def rename_a_key(text: bytes, chance: random.Random) -> bytes:
    content = json.loads(text)
    container, key = chance.choice(_places(content))
    if isinstance(container, dict):
        container[
            chance.choice(
                [
                    "",
                    "x" * 10_000,
                    "../../escape",
                    "__metadata__",
                    "\ud800".encode("utf-8", "replace").decode(),
                    f"{key}s",
                ]
            )
        ] = container.pop(key)
    return _with_marks(content, {})


def exchange_values(text: bytes, chance: random.Random) -> bytes:
    content = json.loads(text)
    (first, i), (second, j) = chance.choice(_places(content)), chance.choice(_places(content))
    first[i], second[j] = json.loads(json.dumps(second[j])), json.loads(json.dumps(first[i]))
    return _with_marks(content, {})


def wrap(text: bytes, chance: random.Random) -> bytes:
    """Another level, or a hundred thousand."""
    levels = chance.choice((1, 2, 99, 100, 1000, 100_000))
    before, after = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return before * levels + text + after * levels


JSONS = (
    replace_a_value,
    replace_a_value,
    replace_a_value,
    lose_a_value,
    repeat_a_value,
    rename_a_key,
    exchange_values,
    wrap,
)


# --- what is at its place instead ---


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


PLACES: tuple[Callable[[Path], object], ...] = (
    Path.mkdir,
    os.mkfifo,
    Path.touch,
    _huge,
    _link_to("/dev/zero"),
    _link_to("/dev/stdin"),
    _link_to("nowhere"),
    _link_to("."),
    lambda path: path.symlink_to(path.name),
    lambda path: path.write_bytes(b"{" + b'"a": [' * 100_000),
    lambda path: path.write_bytes(b"[" * (1 << 20)),
    lambda path: path.write_bytes(b"9" * (1 << 20)),
    lambda path: path.write_bytes(b" " * (1 << 20)),
)  # fmt: skip


# --- all together ---


@dataclass
class InputReport:
    """What reading damaged files did, by the kind of file."""

    files: collections.Counter[str] = field(default_factory=collections.Counter)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    right: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    memory: int = 0
    slowest: float = 0.0
    slowest_of: str = ""


def _outcome(read: Callable[[Path], None], path: Path) -> str:
    """Returns "refused", "right", or what else came of reading a file."""
    try:
        read(path)
    except (ValueError, OSError) as error:
        return "refused" if len(str(error)) < 2000 else f"a message of {len(str(error)):,} characters"
    except BaseException as error:  # noqa: BLE001 - anything else is what this looks for
        return repr(error)[:500]
    return "right"


def _place(kind: Kind, path: Path, wholes: list[bytes], chance: random.Random) -> str:
    """Puts a damaged file at a path, and returns what was done."""
    if chance.random() < 0.03:
        instead = chance.randrange(len(PLACES))
        PLACES[instead](path)
        return f"place {instead}"
    content = chance.choice(wholes)
    if chance.random() < 0.4:
        damage = chance.choice(BYTES)
        path.write_bytes(damage(content, chance, wholes))
        return damage.__name__
    change = chance.choice(JSONS)
    before, text, after = kind.split(content)
    path.write_bytes(kind.join(before, change(text, chance), after))
    return change.__name__


def damage_inputs(work: Path, files: int, seed: int = 0) -> InputReport:
    """Damages so many files, each time a whole one of the next kind, and reads them."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    report = InputReport()
    wholes: dict[str, list[bytes]] = {}
    for name, kind in KINDS.items():
        made = work / "whole" / kind.name
        made.mkdir(parents=True)
        kind.make(made)
        wholes[name] = [path.read_bytes() for path in sorted(made.iterdir()) if path.name.isdigit()]
        if kind.name == "config.json":
            model = made / "model.safetensors"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = list(KINDS)
    with _watched():
        for i in range(files):
            name = names[i % len(names)]
            directory = work / "damaged"
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            if name == "models' config.json":
                shutil.copy(model, directory)
            path = directory / KINDS[name].name
            done = _place(KINDS[name], path, wholes[name], chance)
            report.files[name] += 1
            faulthandler.dump_traceback_later(HANG, exit=True)
            began = time.perf_counter()
            outcome = _outcome(KINDS[name].read, path)
            seconds = time.perf_counter() - began
            if seconds > report.slowest:
                report.slowest, report.slowest_of = seconds, f"{name}, {done} (file {i})"
            getattr(report, outcome if outcome in ("refused", "right") else "wrong")[name] += 1
            if outcome not in ("refused", "right"):
                report.failures.append(f"{name}, {done} (file {i}): {outcome}")
    report.memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if report.memory > MEMORY:
        report.failures.append(f"{report.memory:,} bytes of memory for damaged files")
    return report


@contextmanager
def _watched() -> Iterator[None]:
    """Limits memory, ends the process if it hangs, and discards what tiktoken prints when it panics, in the block."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * MEMORY, limits[1]))
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.dup2(stderr, 2)
        os.close(stderr)
        resource.setrlimit(resource.RLIMIT_AS, limits)
