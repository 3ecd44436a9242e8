"""Models on disk: what is saved comes back, and what is damaged or foreign is told."""

import copy
import json
import logging
import os
import pickle
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import tinygpt2._internal.files
import tinygpt2.formats.huggingface
from tinygpt2 import CharTokenizer, CheckpointError, GPT2Config, GPT2Model, load_tokenizer, save_tokenizer
from tinygpt2.formats.huggingface import config_from_huggingface, config_to_huggingface
from tinygpt2.formats.manifest import has_manifest

TINY = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)
VARIANTS = [  # tied or not, with the bias of queries, keys and values or not
    replace(TINY, tie_weights=tie_weights, qkv_bias=qkv_bias, dropout=dropout)
    for tie_weights in (True, False)
    for qkv_bias, dropout in ((True, 0.1), (False, 0.0))
] + [
    replace(TINY, n_inner=50, activation_function="relu", layer_norm_epsilon=1e-6, initializer_range=0.01),
    replace(TINY, activation_function="gelu", scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
]
FILES = ["config.json", "model.safetensors"]
TOKENS = torch.arange(32).view(2, 16)


def random_model(config: GPT2Config = TINY) -> GPT2Model:
    """In which no weight and no bias is zero, or one."""
    model = GPT2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory with a model."""
    random_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_config(directory: Path, **changes: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_weights(directory: Path, changes: dict[str, Tensor | None]) -> None:
    weights = load_file(directory / "model.safetensors") | changes
    kept = {name: weight.clone() for name, weight in weights.items() if weight is not None}
    save_file(kept, directory / "model.safetensors")


# There and back


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, config: GPT2Config) -> None:
    model = random_model(config)
    model.save_pretrained(tmp_path)
    loaded = GPT2Model.from_pretrained(tmp_path)
    assert loaded.config == config
    expected, actual = model.state_dict(), loaded.state_dict()
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert torch.equal(loaded(TOKENS), model(TOKENS))


def test_the_model_comes_ready_to_evaluate_and_to_train(saved: Path) -> None:
    state = torch.get_rng_state()
    loaded = GPT2Model.from_pretrained(saved)
    assert torch.equal(torch.get_rng_state(), state)  # no random numbers for weights that are replaced
    assert not any(module.training for module in loaded.modules())
    for parameter in loaded.parameters():
        assert isinstance(parameter, torch.nn.Parameter)
        assert parameter.requires_grad
        assert parameter.is_contiguous()
        assert parameter.device == torch.device("cpu")
        assert parameter.dtype == torch.float32


def test_the_model_does_not_hang_on_the_file(saved: Path) -> None:
    """safetensors maps the file into memory: a file that was overwritten changed the model that was read from it."""
    loaded = GPT2Model.from_pretrained(saved)
    before = copy.deepcopy(loaded.state_dict())
    weights = saved / "model.safetensors"
    content = weights.read_bytes()
    with weights.open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(bytes(len(content) - len(content) // 2))
    assert all(torch.equal(weight, before[name]) for name, weight in loaded.state_dict().items())
    weights.write_bytes(content)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert weights.read_bytes() == content


def test_a_loaded_model_is_copied_and_pickled_as_itself(saved: Path) -> None:
    """Weights that share the memory of one file would each bring all of it along."""
    loaded = GPT2Model.from_pretrained(saved)
    pickled = pickle.dumps(loaded)
    assert len(pickled) < 4 * loaded.num_parameters() + 50_000
    for other in (copy.deepcopy(loaded), pickle.loads(pickled)):  # noqa: S301 - our own bytes
        assert torch.equal(other(TOKENS), loaded(TOKENS))


def test_a_file_says_what_is_in_it(saved: Path) -> None:
    """The names and layout are transformers': a prefix, Conv1D's (in, out), no head where it is tied."""
    weights = load_file(saved / "model.safetensors")
    state = GPT2Model.from_pretrained(saved).state_dict()
    assert sorted(weights) == sorted(f"transformer.{name}" for name in state)
    shapes = {name.removeprefix("transformer.h.1."): tuple(weights[name].shape) for name in weights if ".h.1." in name}
    assert shapes["attn.c_attn.weight"] == (24, 72)
    assert shapes["mlp.c_fc.weight"] == (24, 96)
    assert shapes["mlp.c_proj.weight"] == (96, 24)
    assert torch.equal(weights["transformer.h.1.attn.c_proj.weight"], state["h.1.attn.c_proj.weight"].T)
    assert torch.equal(weights["transformer.wte.weight"], state["wte.weight"])
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers 4 refuses a file that does not say so
    content = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert content == content | {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 61, "n_positions": 16, "n_layer": 2,
        "n_head": 3, "n_embd": 24, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1,
        "embd_pdrop": 0.1, "attn_pdrop": 0.1, "tie_word_embeddings": True, "dtype": "float32",
    }  # fmt: skip


def test_saving_replaces_what_is_there_and_nothing_else(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine", encoding="utf-8")
    other = random_model(replace(TINY, n_layer=1, tie_weights=False))
    other.save_pretrained(saved)
    loaded = GPT2Model.from_pretrained(saved)
    assert loaded.config == other.config
    assert torch.equal(loaded(TOKENS), other(TOKENS))
    assert sorted(path.name for path in saved.iterdir()) == sorted([*FILES, "notes.txt"])
    assert (saved / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_model_can_be_saved_over_the_file_it_came_from(saved: Path) -> None:
    loaded = GPT2Model.from_pretrained(saved)
    expected = loaded(TOKENS)
    loaded.save_pretrained(saved)
    assert torch.equal(loaded(TOKENS), expected)
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), expected)


@pytest.mark.parametrize("file", FILES)
def test_saving_that_fails_leaves_the_old_files_whole(saved: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save on a full disk destroys the file that was there."""
    before = {name: (saved / name).read_bytes() for name in FILES}

    def full_disk(open_file: BinaryIO) -> None:
        open_file.write(b"half of i")
        raise OSError("no space left on device")

    real = tinygpt2._internal.files.write_chunks

    def write_chunks(open_file: BinaryIO, *, chunks: Iterable[memoryview | bytes]) -> object:
        if f".{file}." in open_file.name:
            full_disk(open_file)
        return real(open_file, chunks)

    monkeypatch.setattr(tinygpt2.formats.huggingface, "write_chunks", write_chunks)
    same_shape = random_model()
    with pytest.raises(OSError, match="no space left"):
        same_shape.save_pretrained(saved)
    assert (saved / file).read_bytes() == before[file]
    assert sorted(path.name for path in saved.iterdir()) == FILES
    GPT2Model.from_pretrained(saved)


def test_paths_may_be_text_deep_and_chinese(tmp_path: Path) -> None:
    path = tmp_path / "模型" / "第一个"
    random_model().save_pretrained(str(path))
    assert sorted(entry.name for entry in path.iterdir()) == FILES
    assert GPT2Model.from_pretrained(str(path)).config == TINY


def test_saving_where_a_file_is_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        random_model().save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


# Dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_are_saved_in_their_dtype_and_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model(replace(TINY, qkv_bias=False)).to(dtype)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert content["dtype"] == str(dtype).removeprefix("torch.")
    state = GPT2Model.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(state[name], weight.float()) for name, weight in model.state_dict().items())


def test_the_default_dtype_is_the_one_that_weights_are_read_in(saved: Path) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        loaded = GPT2Model.from_pretrained(saved)
    finally:
        torch.set_default_dtype(before)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float64}
    assert torch.equal(loaded.wte.weight.float(), GPT2Model.from_pretrained(saved).wte.weight)


# Files of others


def test_openais_own_names_and_masks_are_read(saved: Path) -> None:
    """The files of 2019 have no prefix and carry the causal mask, and some a copy of the tied head."""
    expected = GPT2Model.from_pretrained(saved)(TOKENS)
    weights = load_file(saved / "model.safetensors")
    old = {name.removeprefix("transformer."): weight.clone() for name, weight in weights.items()}
    for i in range(TINY.n_layer):
        old[f"h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        old[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    old["lm_head.weight"] = old["wte.weight"].clone()
    save_file(old, saved / "model.safetensors")
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), expected)


def test_a_config_of_2019_is_read() -> None:
    content = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 1024, "n_head": 16, "n_layer": 24,
        "n_positions": 1024, "n_special": 0, "predict_special_tokens": True, "resid_pdrop": 0.1,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "vocab_size": 50257,
    }  # fmt: skip
    assert config_from_huggingface(content) == GPT2Config.preset("gpt2-medium")


@pytest.mark.parametrize("config", [*VARIANTS, GPT2Config(), GPT2Config.preset("gpt2-xl")], ids=str)
def test_a_config_comes_back_and_nothing_is_odd_about_it(config: GPT2Config, caplog: pytest.LogCaptureFixture) -> None:
    assert config_from_huggingface(json.loads(json.dumps(config_to_huggingface(config)))) == config
    assert not caplog.records


@pytest.mark.parametrize(
    "option", [{"n_inner": None}, {"use_cache": False}, {"reorder_and_upcast_attn": True}, {"initializer_range": 0.02}]
)
def test_other_ways_to_say_the_same_are_read(saved: Path, option: dict[str, object]) -> None:
    edit_config(saved, **option)
    assert GPT2Model.from_pretrained(saved).config == TINY


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'.* 'gpt2'"),
        ({"activation_function": "swish"}, "activation_function must be one of .*gelu_new.*got 'swish'"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be"),
        ({"scale_attn_weights": 1}, "scale_attn_weights must be True or False, got 1"),
        ({"add_cross_attention": True}, "add_cross_attention is True.* False"),
        ({"n_head": 5}, "n_embd .24. must be divisible by n_head .5."),
        ({"n_layer": 0}, "n_layer must be at least 1, got 0"),
        ({"n_layer": "2"}, "n_layer must be an integer, got '2'"),
        ({"vocab_size": None}, "vocab_size must be an integer, got None"),
        ({"resid_pdrop": 1.5}, "resid_pdrop must be"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be True or False, got 'yes'"),
        ({"n_positions": 10**30}, "n_positions must be at most 2147483648, got 1000"),
        ({"n_positions": True}, "n_positions must be an integer, got True"),
        ({"n_embd": 10**15 + 37}, "n_embd must be at most 1048576, got 1000000000000037"),
        ({"n_embd": 10**400}, "n_embd must be at most 1048576, got about 10..400"),
        ({"n_layer": 10**9}, "n_layer must be at most 10000"),
        ({"attn_pdrop": "0.1"}, "attn_pdrop must be a number, got '0.1'"),
        ({"n_inner": 10**200}, r"n_inner must be at most 4194304, got about 10\*\*200"),
    ],
    ids=str,
)
def test_a_model_that_tinygpt2_does_not_have_is_told(saved: Path, option: dict[str, object], message: str) -> None:
    edit_config(saved, **option)
    with pytest.raises(ValueError, match=f"cannot read .*config.json: {message}"):
        GPT2Model.from_pretrained(saved)


def test_dropouts_that_differ_are_told_and_the_residual_one_is_taken(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit_config(saved, attn_pdrop=0.3)
    with caplog.at_level(logging.WARNING, logger="tinygpt2"):
        assert GPT2Model.from_pretrained(saved).config.dropout == 0.1
    assert "attn_pdrop" in caplog.text


# Files that are missing or damaged


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices, and links without a privilege")
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_is_told_and_links_are_followed(saved: Path, file: str) -> None:
    """A cache of the Hub has links to its files."""
    (saved / file).rename(saved / "blob")
    (saved / file).symlink_to("blob")
    assert GPT2Model.from_pretrained(saved).config == TINY
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")):
        (saved / file).rmdir() if (saved / file).is_dir() else (saved / file).unlink()
        make(saved / file)
        with pytest.raises(ValueError, match=rf"cannot read .*{file}: {file} is not a regular file"):
            GPT2Model.from_pretrained(saved)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_a_quantised_weight_is_not_taken_for_numbers(saved: Path, dtype: torch.dtype) -> None:
    """Its integers used to become the weights, without their scales."""
    weight = load_file(saved / "model.safetensors")["transformer.h.0.mlp.c_fc.weight"]
    edit_weights(saved, {"transformer.h.0.mlp.c_fc.weight": weight.to(dtype)})
    with pytest.raises(ValueError, match=rf"cannot read .*h\.0\.mlp\.c_fc\.weight is {dtype}, not floating point"):
        GPT2Model.from_pretrained(saved)


@pytest.mark.parametrize("name", ["vocab_size", "n_positions", "n_embd", "n_layer"])
def test_a_shape_beyond_its_weights_is_told_before_it_takes_memory(saved: Path, name: str) -> None:
    edit_config(saved, **{name: 9000 if name == "n_layer" else 3 * 2**18})
    with pytest.raises(ValueError, match="weights"):
        GPT2Model.from_pretrained(saved)


def test_a_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nowhere does not exist; expected a directory.*or the name of a model"
    ):
        GPT2Model.from_pretrained(tmp_path / "nowhere")


def test_a_file_in_the_place_of_the_directory_is_told(saved: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is a file; expected a directory"):
        GPT2Model.from_pretrained(saved / "model.safetensors")


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_missing_is_told(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {file}$"):
        GPT2Model.from_pretrained(saved)


# Weights in other files


def in_other_files(saved: Path, kind: str) -> dict[str, Tensor]:
    """Replaces the one file of weights with others, and returns the weights."""
    weights = {name: weight.clone() for name, weight in load_file(saved / "model.safetensors").items()}
    (saved / "model.safetensors").unlink()
    if kind in {"pickled", "pickled, old"}:
        torch.save(weights, saved / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "pickled")
        return weights
    end = "safetensors" if kind == "shards" else "bin"
    single = "model.safetensors" if kind == "shards" else "pytorch_model.bin"
    names = sorted(weights)
    places: dict[str, str] = {}
    for i, part in enumerate((names[:5], names[5:20], names[20:]), 1):
        shard = f"{single.removesuffix('.' + end)}-0000{i}-of-00003.{end}"
        tensors = {name: weights[name] for name in part}
        save_file(tensors, saved / shard) if kind == "shards" else torch.save(tensors, saved / shard)
        places |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (saved / f"{single}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return weights


KINDS = ["shards", "pickled", "pickled, old", "pickled shards"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_shards_and_pickles_are_read(saved: Path, kind: str) -> None:
    expected = GPT2Model.from_pretrained(saved)(TOKENS)
    in_other_files(saved, kind)
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), expected)


@pytest.mark.parametrize("size", [1, 5000, 60_000, 10**9])
def test_shards_are_written_and_replaced(saved: Path, size: int) -> None:
    model = GPT2Model.from_pretrained(saved)
    model.save_pretrained(saved, max_shard_size=size)
    shards = sorted(path.name for path in saved.glob("*.safetensors"))
    weights = len(model.state_dict())
    assert len(shards) == {1: weights, 5000: 14, 60_000: 2, 10**9: 1}[size]
    assert ("model.safetensors" in shards) == (size == 10**9) != (saved / "model.safetensors.index.json").exists()
    if size == 60_000:
        assert all((saved / shard).stat().st_size < 60_000 + 3000 for shard in shards)
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), model(TOKENS))
    model.save_pretrained(saved)
    assert sorted(path.name for path in saved.iterdir()) == FILES
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), model(TOKENS))


def test_safetensors_are_preferred_to_pickles(saved: Path) -> None:
    (saved / "pytorch_model.bin").write_bytes(b"damaged")
    assert GPT2Model.from_pretrained(saved).config == TINY


@pytest.mark.parametrize("content", [b"cos\nsystem\n(S'exit 1'\ntR.", pickle.dumps({"wte.weight": 3})])
def test_a_pickle_runs_no_code_and_has_tensors_alone(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*pytorch_model\.bin: pytorch_model\.bin (has|is|should)"):
        GPT2Model.from_pretrained(saved)


def test_code_in_a_pickle_of_tensors_is_not_run(saved: Path, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    weights = in_other_files(saved, "pickled")
    torch.save(weights | {"more": Runs()}, saved / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin is damaged, or has more than tensors, which is not read, as it could run"
    ):
        GPT2Model.from_pretrained(saved)
    assert not (tmp_path / "ran").exists()


def test_a_shard_that_is_missing_is_told(saved: Path) -> None:
    in_other_files(saved, "shards")
    (saved / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no model-00002-of-00003\.safetensors, a shard that model\.safet.* lists"
    ):
        GPT2Model.from_pretrained(saved)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({}, "weight_map in .* should have the shard of each weight"),
        ([1], "weight_map in .* should have the shard of each weight"),
        ({"a": "../other.safetensors"}, r"has a shard '\.\./other\.safetensors', which is not the name of a file"),
        ({"a": 3}, "has a shard '3', which is not the name"),
        ({"a": "model-00001-of-00003.safetensors"}, "model-00001-of-00003.safetensors has no a, although"),
    ],
    ids=str,
)
def test_a_wrong_index_is_told(saved: Path, places: object, message: str) -> None:
    in_other_files(saved, "shards")
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"cannot read .*index.json: .*{message}"):
        GPT2Model.from_pretrained(saved)


def test_an_adapter_is_told_with_the_line_that_merges_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"adapter of peft.*AutoPeftModel.*merge_and_unload\(\)\.save_pre"):
        GPT2Model.from_pretrained(tmp_path)


# What a file may say of the model


def test_a_head_that_differs_from_tied_embeddings_is_the_models(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was dropped, and the logits were others."""
    head = torch.randn(61, 24)
    edit_weights(saved, {"lm_head.weight": head})
    with caplog.at_level(logging.WARNING, logger="tinygpt2"):
        model = GPT2Model.from_pretrained(saved)
    assert "has a head that differs from the embedding" in caplog.text
    assert model.config == replace(TINY, tie_weights=False)
    assert torch.equal(model.head_weight, head)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_is_that_of_the_file_or_another(saved: Path, dtype: torch.dtype) -> None:
    edit_weights(saved, {name: w.to(dtype) for name, w in load_file(saved / "model.safetensors").items()})
    assert GPT2Model.from_pretrained(saved).wte.weight.dtype == torch.float32
    kept = GPT2Model.from_pretrained(saved, dtype="auto")
    assert {parameter.dtype for parameter in kept.parameters()} == {dtype}
    assert GPT2Model.from_pretrained(saved, dtype=torch.float64).wte.weight.dtype == torch.float64
    with pytest.raises(ValueError, match="dtype must be floating point"):
        GPT2Model.from_pretrained(saved, dtype=torch.int8)
    with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype"):
        GPT2Model.from_pretrained(saved, dtype="float32")  # type: ignore[arg-type]


def test_the_context_can_be_cut(saved: Path) -> None:
    whole, cut = GPT2Model.from_pretrained(saved), GPT2Model.from_pretrained(saved, context_length=TOKENS.shape[1])
    assert cut.config == replace(TINY, context_length=TOKENS.shape[1])
    assert torch.equal(cut(TOKENS), whole(TOKENS))
    with pytest.raises(ValueError, match="context_length is 17, but the model has positions for 16 tokens"):
        GPT2Model.from_pretrained(saved, context_length=17)


@pytest.mark.parametrize("size", [60, 61, 64])
def test_a_vocabulary_of_another_size_is_read(tmp_path: Path, size: int) -> None:
    random_model(replace(TINY, vocab_size=size)).save_pretrained(tmp_path)
    assert GPT2Model.from_pretrained(tmp_path).config.vocab_size == size


# Damage


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.01, 0.5, 0.9999])
def test_truncated_weights_are_told(saved: Path, kept: float) -> None:
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors"):
        GPT2Model.from_pretrained(saved)


@pytest.mark.parametrize("content", [b"\xff" * 100, b"<!DOCTYPE html>" * 10, b"version https://git-lfs.github.com/"])
def test_weights_that_are_something_else_are_told(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors"):
        GPT2Model.from_pretrained(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"gpt2"', b"\xff\xfe{}", b'{"n_layer": 2,}'])
def test_a_config_that_is_no_json_object_is_told(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*config\.json"):
        GPT2Model.from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer.wpe.weight": torch.zeros(8, 24)}, r"wpe.weight should be \(16, 24\) but is \(8, 24\)$"),
        ({"transformer.ln_f.bias": None}, r"ln_f.bias should be \(24,\) but is absent$"),
        ({"transformer.h.2.ln_1.bias": torch.zeros(24)}, r"h.2.ln_1.bias should be absent but is \(24,\)$"),
        ({"transformer.wte.weight": None, "embedding": torch.zeros(61, 24)}, "embedding .*; 2 weights differ$"),
        ({"transformer.h.0.mlp.c_fc.weight": torch.zeros(96, 24)}, r"c_fc.weight .* \(96, 24\) but is \(24, 96\)$"),
    ],
    ids=["shape", "missing", "unknown", "renamed", "not transposed"],
)
def test_weights_of_another_model_are_told(saved: Path, changes: dict[str, Tensor | None], message: str) -> None:
    edit_weights(saved, changes)
    with pytest.raises(ValueError, match=rf"weights in .*model are not those of its config.json: .*{message}"):
        GPT2Model.from_pretrained(saved)


def test_an_untied_model_without_its_head_is_told(saved: Path) -> None:
    edit_config(saved, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lm_head.weight should be \(61, 24\) but is absent"):
        GPT2Model.from_pretrained(saved)


def test_a_bias_is_never_dropped_in_silence(tmp_path: Path) -> None:
    """``qkv_bias`` is ours alone.

    transformers reads such a model with biases of zero, trains them, and keeps our ``qkv_bias: false`` in the config it
    saves. To leave the trained biases out would give other logits without a word.
    """
    random_model(replace(TINY, qkv_bias=False)).save_pretrained(tmp_path)
    edit_weights(tmp_path, {f"transformer.h.{i}.attn.c_attn.bias": torch.ones(72) for i in range(TINY.n_layer)})
    loaded = GPT2Model.from_pretrained(tmp_path)
    edit_config(tmp_path, qkv_bias=True)
    assert torch.equal(loaded(TOKENS), GPT2Model.from_pretrained(tmp_path)(TOKENS))


# Directories with a manifest


@pytest.mark.parametrize("manifest", ['{"files": {"config.json": {}}}', '{"files": []}', "no JSON"])
def test_a_model_is_not_saved_over_a_checkpoint(saved: Path, manifest: str) -> None:
    """The manifest kept the hashes of the model before, and the next reader called the new one damaged."""
    (saved / "manifest.json").write_text(manifest, encoding="utf-8")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(
        ValueError, match=r"is a checkpoint or a copy of one: its manifest\.json .* remove manifest\.json"
    ):
        random_model().save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    (saved / "manifest.json").unlink()
    random_model().save_pretrained(saved)
    GPT2Model.from_pretrained(saved)


OURS = {"files": {name: {"size": 1, "sha256": "0" * 64} for name in ("config.json", "model.safetensors")}}
THEIRS = '{"name": "an app", "icons": [{"src": "icon.png", "sizes": "48x48"}], "version": 3}'


@pytest.mark.parametrize("manifest", [THEIRS, "{}", THEIRS.replace("3", f'"{"3" * 100_000}"')], ids=["web", "", "long"])
def test_the_manifest_of_another_program_is_not_ours(saved: Path, manifest: str) -> None:
    """Its directory could be neither loaded nor written."""
    (saved / "manifest.json").write_text(manifest, encoding="utf-8")
    save_tokenizer(CharTokenizer("abc"), saved)
    assert load_tokenizer(saved) == CharTokenizer("abc")
    model = random_model()
    model.save_pretrained(saved)
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), model(TOKENS))
    for name in ("training.json", "training_state.safetensors"):  # a checkpoint, whose manifest is ours in any case
        (saved / name).touch()
        with pytest.raises(CheckpointError, match="is not an intact checkpoint: "):
            GPT2Model.from_pretrained(saved)
        (saved / name).unlink()
    GPT2Model.from_pretrained(saved)


def test_no_change_of_a_byte_makes_our_manifest_another_programs(saved: Path) -> None:
    """And verification with it would be off."""
    content = json.dumps(OURS).encode()
    for place in range(len(content)):
        for byte in (content[place] ^ 1 << place % 8, ord(" ")):
            (saved / "manifest.json").write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            assert has_manifest(saved)
    for rest in (b"", b"[]", content[:-9], bytes(len(content)), b"no JSON"):
        (saved / "manifest.json").write_bytes(rest)
        with pytest.raises(CheckpointError):
            GPT2Model.from_pretrained(saved)


def test_a_tokenizer_is_added_to_a_checkpoint_and_does_not_replace_one(saved: Path) -> None:
    (saved / "manifest.json").write_text('{"files": {"config.json": {}}}', encoding="utf-8")
    save_tokenizer(CharTokenizer("abc"), saved)
    (saved / "manifest.json").write_text('{"files": {"tinygpt2_tokenizer.json": {}}}', encoding="utf-8")
    with pytest.raises(ValueError, match="has the hashes of the files that would be replaced"):
        save_tokenizer(CharTokenizer("abcd"), saved)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_weights_may_be_a_link_to_another_disk(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").rename(tmp_path / "weights")
    (saved / "model.safetensors").symlink_to(tmp_path / "weights")
    model = random_model()
    model.save_pretrained(saved)
    assert (saved / "model.safetensors").is_symlink()
    assert torch.equal(GPT2Model.from_pretrained(saved)(TOKENS), model(TOKENS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "weights"]
