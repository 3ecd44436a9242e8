"""The contestants: the same GPT-2 with the same weights, used as each library's own users use it.

Each is a function from the work to an answer that is the same for all, and a function that makes one step: of training,
where the answer is the loss before it, without dropout; or of generation, where it is the tokens.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _measure import Step
from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    NextTokenLoss,
    TrainingConfig,
    evaluate,
    generate,
    gpt2_tokenizer,
    make_optimizer,
    quantize,
    training_step,
)
from tinygpt2._internal.cpu import fast_products, keep_memory

LEARNING_RATE, WEIGHT_DECAY, BETAS, MAX_GRAD_NORM = 4e-4, 0.1, (0.9, 0.95), 1.0


@dataclass(frozen=True)
class Work:
    """What is trained, or generates, the same for all."""

    config: GPT2Config
    batch_size: int
    length: int
    nanogpt: str | None = None
    dtype: torch.dtype = torch.float32
    seed: int = 0
    prompt: int = 8  # tokens, of generation

    def model(self) -> GPT2Model:
        torch.manual_seed(self.seed)
        return GPT2Model(self.config)

    def batch(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(self.config.vocab_size, (self.batch_size, self.length + 1), generator=generator)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def prompts(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(self.config.vocab_size, (self.batch_size, self.prompt), generator=generator)


def num_parameters(config: GPT2Config) -> int:
    """Returns how many parameters a model has, without making it."""
    with torch.device("meta"):
        return GPT2Model(config).num_parameters()


def tinygpt2(work: Work) -> tuple[float, Step]:
    """The step of `train`, without its evaluations."""
    model, batch = work.model(), work.batch()
    config = TrainingConfig(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS)
    keep_memory()  # as train does
    loss = evaluate(model, [batch]).loss
    objective, optimizer = NextTokenLoss(model), make_optimizer(model, config)
    model.train()

    def step() -> None:
        with fast_products():  # as train does
            training_step(objective, optimizer, [batch], max_grad_norm=MAX_GRAD_NORM, seed=0)

    return loss, step


def _transformers_model(work: Work) -> Any:  # noqa: ANN401
    from transformers import GPT2LMHeadModel  # noqa: PLC0415

    with TemporaryDirectory() as directory:
        work.model().save_pretrained(directory)
        return GPT2LMHeadModel.from_pretrained(directory, attn_implementation="sdpa", dtype=work.dtype)


def transformers(work: Work) -> tuple[float, Step]:
    """The loop of its documentation, "Fine-tune a pretrained model in native PyTorch", with clipping."""
    model = _transformers_model(work)
    return _plain(model, lambda inputs: model(inputs).logits, work)


def llms_from_scratch(work: Work) -> tuple[float, Step]:
    """Chapters 4 and 5 of the book; its head is not tied to the embedding, so it has more parameters."""
    GPTModel = importlib.import_module("llms_from_scratch.ch04").GPTModel  # noqa: N806
    config = work.config
    model = GPTModel({
        "vocab_size": config.vocab_size, "context_length": config.context_length, "emb_dim": config.n_embd,
        "n_heads": config.n_head, "n_layers": config.n_layer, "drop_rate": config.dropout, "qkv_bias": True,
    })  # fmt: skip
    ours = work.model().state_dict()
    theirs = {"tok_emb.weight": ours["wte.weight"], "pos_emb.weight": ours["wpe.weight"]}
    theirs |= {"out_head.weight": ours["wte.weight"]}
    for norm, name in (("final_norm", "ln_f"), *((f"trf_blocks.{i}.norm{n}", f"h.{i}.ln_{n}")
                       for i in range(config.n_layer) for n in (1, 2))):  # fmt: skip
        theirs |= {f"{norm}.scale": ours[f"{name}.weight"], f"{norm}.shift": ours[f"{name}.bias"]}
    layers = {"att.out_proj": "attn.c_proj", "ff.layers.0": "mlp.c_fc", "ff.layers.2": "mlp.c_proj"}
    for i in range(config.n_layer):
        for kind in ("weight", "bias"):
            parts = ours[f"h.{i}.attn.c_attn.{kind}"].chunk(3)
            theirs |= {
                f"trf_blocks.{i}.att.W_{n}.{kind}": p for n, p in zip(("query", "key", "value"), parts, strict=True)
            }
            theirs |= {f"trf_blocks.{i}.{their}.{kind}": ours[f"h.{i}.{our}.{kind}"] for their, our in layers.items()}
    missing = model.load_state_dict(theirs, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith(".mask") for name in missing.missing_keys)
    return _plain(model, model, work)


def nanogpt_model(work: Work) -> Any:  # noqa: ANN401
    """Returns the model of a checkout, with the weights of ours."""
    assert work.nanogpt is not None
    sys.path.insert(0, work.nanogpt)
    theirs = importlib.import_module("model")
    config = work.config
    model = theirs.GPT(theirs.GPTConfig(
        block_size=config.context_length, vocab_size=config.vocab_size, n_layer=config.n_layer, n_head=config.n_head,
        n_embd=config.n_embd, dropout=config.dropout, bias=True,
    ))  # fmt: skip
    ours = {f"transformer.{name}": weight for name, weight in work.model().state_dict().items()}
    missing = model.load_state_dict(ours | {"lm_head.weight": ours["transformer.wte.weight"]}, strict=False)
    assert not missing.unexpected_keys
    return model.to(work.dtype)


def nanogpt(work: Work) -> tuple[float, Step]:
    """The loop of train.py with its own optimizer groups, from a checkout."""
    model = nanogpt_model(work)
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, "cpu")
    inputs, targets = work.batch()

    def loss() -> Any:  # noqa: ANN401
        return model(inputs, targets)[1]

    return _loss_without_dropout(model, loss), _step(model, optimizer, loss)


TRAINING: dict[str, Callable[[Work], tuple[Any, Step]]] = {
    "tinygpt2": tinygpt2,
    "nanoGPT": nanogpt,
    "transformers": transformers,
    "LLMs-from-scratch": llms_from_scratch,
}


def tinygpt2_generates(work: Work) -> tuple[Any, Step]:
    return _generates(work.model().to(work.dtype), work)


def int8_generates(work: Work) -> tuple[Any, Step]:
    return _generates(quantize(work.model()), work)


def bf16_generates(work: Work) -> tuple[Any, Step]:
    return _generates(work.model().to(torch.bfloat16), work)


def _generates(model: GPT2Model, work: Work) -> tuple[Any, Step]:
    def step() -> Tensor:
        return generate(model, work.prompts(), max_new_tokens=work.length)

    return step().tolist(), step


def transformers_generates(work: Work) -> tuple[Any, Step]:
    """Its generate, greedy, with its own cache."""
    model = _transformers_model(work).eval()
    prompts = work.prompts()
    mask = torch.ones_like(prompts)
    n = work.length

    def step() -> Any:  # noqa: ANN401
        return model.generate(
            prompts, attention_mask=mask, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0
        )

    return step().tolist(), step


def nanogpt_generates(work: Work) -> tuple[Any, Step]:
    """Its generate with top_k=1, which is greedy; it has no cache."""
    model = nanogpt_model(work).eval()

    def step() -> Any:  # noqa: ANN401
        return model.generate(work.prompts(), work.length, top_k=1)

    return step().tolist(), step


def ctranslate2_generates(work: Work) -> tuple[Any, Step]:
    """CTranslate2 with int8 weights, from the directory that `save_pretrained` writes."""
    ctranslate2 = importlib.import_module("ctranslate2")
    with _saved(work) as directory:
        converted = Path(directory, "converted")
        ctranslate2.converters.TransformersConverter(directory).convert(str(converted), quantization="int8")
        generator = ctranslate2.Generator(
            str(converted), device="cpu", compute_type="int8", intra_threads=torch.get_num_threads()
        )
    tokenizer = gpt2_tokenizer()
    prompts = [["\u0120the"] * work.prompt] * work.batch_size
    options = {"max_length": work.length, "min_length": work.length, "sampling_topk": 1}
    assert tokenizer.n_vocab == work.config.vocab_size

    def step() -> Any:  # noqa: ANN401
        return generator.generate_batch(prompts, include_prompt_in_result=False, **options)

    return [result.sequences_ids[0] for result in step()], step


NODE = """
import {createInterface} from "node:readline";
import {getLlama} from "node-llama-cpp";
const [path, threads, prompt, tokens] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: 1024, threads: Number(threads)});
const ids = model.tokenize(" the".repeat(Number(prompt)));
console.log("ready");
for await (const line of createInterface({input: process.stdin})) {
  const sequence = context.getSequence(), found = [];
  for await (const id of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
    if (found.push(id) == Number(tokens)) break;
  }
  sequence.dispose();
  console.log(JSON.stringify(found));
}
"""


def llama_cpp_generates(work: Work) -> tuple[Any, Step]:
    """llama.cpp with Q8_0 weights, converted by its own script, in Node: see tests/ecosystem/test_llama_cpp.py."""
    source, modules = os.environ["LLAMA_CPP"], Path(os.environ["NODE_LLAMA_CPP"])
    kept = TemporaryDirectory()
    converted, script = Path(kept.name, "model.gguf"), modules / "benchmark.mjs"
    convert = (
        f"import sys; sys.path.insert(0, {source!r}); import convert_hf_to_gguf as c; "
        "from conversion.base import TextModel; TextModel.get_vocab_base_pre = lambda *_: 'gpt-2'; c.main()"
    )
    with _saved(work) as directory:
        command = [sys.executable, "-c", convert, directory, "--outfile", str(converted), "--outtype", "q8_0"]
        subprocess.run(command, check=True, capture_output=True)
    script.write_text(NODE, encoding="utf-8")
    arguments = [str(converted), str(torch.get_num_threads()), str(work.prompt), str(work.length)]
    process = subprocess.Popen(
        [shutil.which("node") or "node", str(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=modules,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()

    def step() -> Any:  # noqa: ANN401
        assert converted.exists(), kept.name  # which is removed with the directory, that is, with this function
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(process.stdout.readline())  # type: ignore[union-attr]

    return step(), step


@contextmanager
def _saved(work: Work) -> Iterator[str]:
    """A directory with the model and GPT-2's vocabulary."""
    with TemporaryDirectory() as directory:
        work.model().save_pretrained(directory, tokenizer=gpt2_tokenizer())
        yield directory


GENERATION: dict[str, Callable[[Work], tuple[Any, Step]]] = {
    "tinygpt2": tinygpt2_generates,
    "transformers": transformers_generates,
    "nanoGPT": nanogpt_generates,
}

FEWER_BITS: dict[str, Callable[[Work], tuple[Any, Step]]] = {
    "tinygpt2 int8": int8_generates,
    "tinygpt2": tinygpt2_generates,
    "tinygpt2 bf16": bf16_generates,
    "CTranslate2 int8": ctranslate2_generates,
    "llama.cpp Q8_0": llama_cpp_generates,
}


def present(
    contestants: dict[str, Callable[[Work], tuple[Any, Step]]], work: Work
) -> dict[str, Callable[[Work], tuple[Any, Step]]]:
    """Returns the contestants that are installed; others are named."""
    modules = {
        "transformers": "transformers",
        "LLMs-from-scratch": "llms_from_scratch",
        "CTranslate2 int8": "ctranslate2",
    }
    there = {}
    for name, contestant in contestants.items():
        if name == "nanoGPT":
            here = work.nanogpt is not None and Path(work.nanogpt, "model.py").exists()
        elif name == "llama.cpp Q8_0":
            here = {"LLAMA_CPP", "NODE_LLAMA_CPP"} <= os.environ.keys()
        else:
            here = name not in modules or importlib.util.find_spec(modules[name]) is not None
        if here:
            there[name] = contestant
        else:
            print(f"{name} is not there", file=sys.stderr)
    return there


def _plain(model: nn.Module, logits: Callable[[Tensor], Tensor], work: Work) -> tuple[float, Step]:
    """A training loop as tutorials write it."""
    inputs, targets = work.batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS)

    def loss() -> Tensor:
        return F.cross_entropy(logits(inputs).flatten(0, 1), targets.flatten())

    return _loss_without_dropout(model, loss), _step(model, optimizer, loss)


def _loss_without_dropout(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    model.eval()
    with torch.no_grad():
        return loss().item()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Step:
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()

    return step
