"""The layout of the package: a module imports only from lower layers, and nothing dangerous anywhere."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygpt2

PACKAGE = Path(tinygpt2.__file__).parent

# The one list of layers; docs/architecture.md tells it in words.
LAYERS = [
    {"_cpu", "_dropout", "_validation", "_files", "_safetensors", "_signals"},
    {"manifest", "config", "tokenizer", "losses", "samplers"},
    {"cache", "device", "optimizer", "huggingface", "plotting", "token_file"},
    {"data", "model", "history"},
    {"generation", "evaluation"},
    {"callbacks"},
    {"checkpoint"},
    {"training"},
    {"_commands"},
    {"_train_command"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {module: number for number, modules in enumerate(LAYERS) for module in modules}

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imported_at_run_time(node: ast.AST) -> Iterator[str]:
    """Yields the names of the modules that a module imports, except those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom):
            yield child.module or ""
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        yield from imported_at_run_time(child)


def test_every_module_has_a_layer() -> None:
    assert sorted(LAYER_OF) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_lower_layers(module: str) -> None:
    names = imported_at_run_time(parse(module))
    ours = [name.removeprefix("tinygpt2.") for name in names if name.startswith("tinygpt2.")]
    too_high = [name for name in ours if LAYER_OF[name] >= LAYER_OF[module]]
    assert not too_high


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reads_pickles_or_the_network(module: str) -> None:
    tree = parse(module)
    imported = {name.split(".")[0] for name in imported_at_run_time(tree)}
    assert not imported & {"pickle", "socket", "urllib", "requests", "http"}
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load"]
    assert not loads


def test_all_is_sorted_and_exists() -> None:
    assert list(tinygpt2.__all__) == sorted(tinygpt2.__all__)
    assert all(hasattr(tinygpt2, name) for name in tinygpt2.__all__)


def test_names_that_the_owner_asked_for_are_public() -> None:
    asked = {
        "GPT2Model", "make_dataloader", "cross_entropy_loss", "perplexity", "train", "Sampler",
        "GreedySampler", "MultinomialSampler", "TopKSampler", "TemperatureSampler",
    }  # fmt: skip
    assert asked <= set(tinygpt2.__all__)


def test_importing_is_quiet_and_loads_no_extra() -> None:
    code = (
        "import sys, tinygpt2; "
        "extras = {'matplotlib', 'tensorboard', 'transformers', 'huggingface_hub'}; "
        "print(sorted(extras & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_every_public_name_has_a_docstring_with_an_example_or_a_protocol() -> None:
    without = [
        name
        for name in tinygpt2.__all__
        if not (doc := getattr(tinygpt2, name).__doc__) or (">>>" not in doc and name not in WITHOUT_EXAMPLE)
    ]
    assert not without


# Names whose example would only repeat that of `train`, which makes, passes or raises them.
WITHOUT_EXAMPLE = {"Callback", "Evaluation", "NonFiniteLossError", "ProgressBar", "TensorBoardLogger", "TextSamples",
                   "TrainState", "load_tokenizer", "read_text"}  # fmt: skip
