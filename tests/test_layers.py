"""The layout of the package: a module imports only from lower layers, and nothing dangerous anywhere."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygpt2

PACKAGE = Path(tinygpt2.__file__).parent
PUBLIC: list[str] = vars(tinygpt2)["__all__"]  # which is made at run time, unseen by type checkers

# The one list of layers, from the lowest: a package imports only from those in earlier lines. docs/architecture.md
# tells it in words.
LAYERS = [
    {"errors"},
    {"_internal"},
    {"config"},
    {"distributed"},
    {"kernels", "formats"},
    {"losses", "text"},
    {"tokenizers"},
    {"data", "model"},
    {"generation", "evaluation"},
    {"plotting"},
    {"run"},
    {"training"},
    {"interop", "page"},
    {"recipe"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}

# Inside a package a file imports only from those before it. Its ``__init__.py`` imports nothing.
FILES = {
    "_internal": [
        "lazy",
        "checks",
        "texts",
        "ranges",
        "files",
        "directories",
        "signals",
        "console",
        "devices",
        "random",
        "cpu",
        "figures",
    ],
    "kernels": ["switch", "linear", "int8", "dropout", "attention", "cross_entropy", "soft_cross_entropy"],
    "distributed": ["sharding", "ranks", "launch"],
    "formats": ["safetensors", "manifest", "weights", "hub", "huggingface"],
    "page": ["tokenizers", "weights", "bundle", "document", "model_page", "past"],
    "interop": ["causal_lm", "logits", "checkpoints", "hub"],
    "text": ["recognition", "archives", "reading", "rows", "tables", "sources", "documents", "splitting"],
    "tokenizers": [
        "protocol",
        "byte_pairs",
        "characters",
        "identity",
        "spelling",
        "vocabulary",
        "choice",
        "foreign",
        "tensors",
        "to_huggingface",
        "from_huggingface",
        "tokenizer_file",
        "storage",
    ],
    "data": [
        "pieces",
        "fast",
        "encoding",
        "token_header",
        "token_file",
        "tokenizing",
        "shards",
        "batches",
        "windows",
        "noise",
        "cuts",
        "noisy",
        "order",
        "identity",
        "streams",
        "loader",
        "mixed",
        "passes",
    ],
    "model": [
        "modes",
        "cache",
        "checks",
        "rounding",
        "int8",
        "gpt2",
        "token_step",
        "quantize",
        "ngram",
        "mixture",
        "objective",
    ],
    "generation": [
        "graphs",
        "steps",
        "samplers",
        "options",
        "window",
        "scores",
        "decoding",
        "pieces",
        "text",
        "sequences",
    ],
    "evaluation": ["loss", "passages", "windows", "text", "scores", "ngrams", "baselines", "copies"],
    "run": ["lock", "directory", "report"],
    "training": [
        "history",
        "schedules",
        "muon",
        "spelling",
        "optimizers",
        "timing",
        "averaging",
        "state",
        "step",
        "callbacks",
        "checkpoints",
        "loop",
        "train",
        "distillation",
    ],
    "recipe": [
        "rules",
        "students",
        "statistics",
        "memory",
        "speed",
        "evaluations",
        "recipe",
        "task",
        "reasons",
        "choices",
        "recommend",
    ],
    "generation.samplers": [
        "protocol",
        "checks",
        "chain",
        "draws",
        "temperature",
        "filters",
        "bias",
        "counts",
        "penalties",
        "bans",
        "strings",
    ],
    "training.callbacks": ["base", "progress", "samples", "snapshots", "stopping", "loggers"],
    "training.checkpoints": ["format", "restore", "seconds", "saver"],
    "cli": [
        "signals",
        "wording",
        "hints",
        "options",
        "runs",
        "inputs",
        "common",
        "settings",
        "writing",
        "display",
        "prompt",
        "generate",
        "evaluate",
        "quantize",
        "tokenize",
        "report",
        "plot",
        "train_options",
        "train_parser",
        "info",
        "diagnosis",
        "doctor",
        "measurement",
        "corpus",
        "page",
        "models",
        "recipes",
        "plan",
        "phases",
        "train",
        "commands",
        "main",
    ],
}

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


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


def ours(module: str) -> list[str]:
    """Returns the modules of the package that a module imports at run time."""
    return [name.removeprefix("tinygpt2.") for name in imported_at_run_time(parse(module)) if is_ours(name)]


def is_ours(name: str) -> bool:
    return name == "tinygpt2" or name.startswith("tinygpt2.")


def place(module: str, package: str) -> int:
    """Returns where a file, or a package in it, stands in the list of a package's files."""
    return FILES[package].index(module.removeprefix(f"{package}.").split(".")[0])


def test_every_module_has_a_place() -> None:
    assert {module.split(".")[0] for module in MODULES} <= LAYER_OF.keys()
    for module in MODULES:
        package, _, file = module.rpartition(".")
        if package and file != "__init__":
            assert file in FILES[package], module


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_lower_layers(module: str) -> None:
    for name in ours(module):
        assert name != "tinygpt2", "nobody imports the package's root"
        there, here = name.split(".")[0], module.split(".", maxsplit=1)[0]
        if there == here:
            package = here
            if module.rpartition(".")[0] == name.rpartition(".")[0]:
                package = module.rpartition(".")[0]
            assert place(name, package) < place(module, package), f"{module} imports {name}"
        else:
            assert LAYER_OF[there] < LAYER_OF[here], f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in MODULES if module.endswith("__init__")])
def test_a_package_has_no_names_of_its_own(module: str) -> None:
    assert not ours(module)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reads_pickles_of_code_or_the_network(module: str) -> None:
    tree = parse(module)
    imported = {name.split(".")[0] for name in imported_at_run_time(tree)}
    assert not imported & {"pickle", "socket", "urllib", "requests", "http"}
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert not loads or module == "formats.weights"
    assert all("weights_only=True" in ast.unparse(load) for load in loads)
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load"]
    assert len(named) == len(loads)


def test_all_is_sorted_and_exists() -> None:
    assert sorted(PUBLIC) == PUBLIC
    assert all(hasattr(tinygpt2, name) for name in PUBLIC)


def test_names_that_the_owner_asked_for_are_public() -> None:
    asked = {
        "GPT2Model", "make_dataloader", "cross_entropy_loss", "perplexity", "train", "Sampler",
        "GreedySampler", "MultinomialSampler", "TopKSampler", "TemperatureSampler",
    }  # fmt: skip
    assert asked <= set(PUBLIC)


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
        for name in PUBLIC
        if not (doc := getattr(tinygpt2, name).__doc__) or (">>>" not in doc and name not in WITHOUT_EXAMPLE)
    ]
    assert not without


# Names whose example would only repeat that of `train`, which makes, passes or raises them.
WITHOUT_EXAMPLE = {"Callback", "Evaluation", "NonFiniteLossError", "ProgressBar", "TensorBoardLogger", "TextSamples",
                   "TrainState", "load_tokenizer", "read_text"}  # fmt: skip
