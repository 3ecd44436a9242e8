"""llama.cpp: its converter on a directory as written, and the greedy text of what it converts.

The converter is in the source of llama.cpp, which is no package: LLAMA_CPP names a directory with it, such as
``vendor/llama.cpp`` in the source distribution of ``llama-cpp-python``. A prebuilt llama.cpp is in the npm package
``node-llama-cpp``: NODE_LLAMA_CPP names a directory in which it is installed. `docs/ecosystem.md` has the commands.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import GPT2Model, Tokenizer, generate

gguf = pytest.importorskip("gguf")

pytestmark = pytest.mark.ecosystem

# What the page on the ecosystem shows: the converter knows vocabularies by what they make of one text, and refuses
# those that it does not know. tinygpt2's own cut texts into words as GPT-2's does.
CONVERT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
convert_hf_to_gguf.main()
"""
RUN = """
import {getLlama} from "node-llama-cpp";
const llama = await getLlama({gpu: false, build: "never", maxThreads: 1});
const model = await llama.loadModel({modelPath: process.argv[2]});
const ids = model.tokenize(process.argv[3]);
const sequence = (await model.createContext({contextSize: 48})).getSequence();
const found = [];
for await (const id of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
  if (found.push(id) == Number(process.argv[4])) break;
}
console.log(JSON.stringify({ids, found}));
process.exit(0);
"""


@pytest.fixture
def source() -> Path:
    """The directory of llama.cpp's source."""
    directory = os.environ.get("LLAMA_CPP")
    if directory is None:
        pytest.skip("LLAMA_CPP names no directory with llama.cpp's convert_hf_to_gguf.py")
    return Path(directory)


@pytest.fixture
def converted(directory: Path, source: Path, tmp_path: Path) -> Path:
    """The directory as a GGUF file in fp32."""
    out = tmp_path / "model.gguf"
    command = [sys.executable, "-c", CONVERT, str(source), str(directory), "--outfile", str(out), "--outtype", "f32"]
    subprocess.run(command, check=True, capture_output=True)
    return out


def test_the_converted_file_has_the_weights_and_the_vocabulary(
    converted: Path, directory: Path, tokenizer: Tokenizer
) -> None:
    """`config.json` had no `n_ctx`."""
    reader: Any = gguf.GGUFReader(str(converted))
    model = GPT2Model.from_pretrained(directory)
    weights = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert torch.equal(weights["token_embd.weight"], model.wte.weight)
    assert torch.equal(weights["blk.1.ffn_up.weight"], model.state_dict()["h.1.mlp.c_fc.weight"])
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["gpt2.context_length"] == model.config.context_length
    assert len(fields["tokenizer.ggml.tokens"]) == tokenizer.n_vocab
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.bos_token_id"] == tokenizer.eot_token


def test_llama_cpp_encodes_and_continues_as_we_do(converted: Path, directory: Path, tokenizer: Tokenizer) -> None:
    node, modules = shutil.which("node"), os.environ.get("NODE_LLAMA_CPP")
    if node is None or modules is None:
        pytest.skip("node is not installed, or NODE_LLAMA_CPP names no directory with node-llama-cpp")
    script = Path(modules) / "tinygpt2-test.mjs"
    script.write_text(RUN, encoding="utf-8")
    text = "In the summer of 1914 they've said: 你好 🙂"
    try:
        command = [node, str(script), str(converted), text, "12"]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        script.unlink()
    answer = json.loads(result.stdout.splitlines()[-1])
    ids = tokenizer.encode_ordinary(text)
    assert answer["ids"] == ids
    expected = generate(GPT2Model.from_pretrained(directory), torch.tensor([ids]), max_new_tokens=12)
    assert answer["found"] == expected[0, len(ids) :].tolist()
