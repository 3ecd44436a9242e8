"""The kinds of text that people have, from the file to a model that writes: each as a new user would try it."""

import bz2
import csv
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinygpt2 import CharTokenizer, TokenFile, gpt2_tokenizer, load_tokenizer, sample_text, save_tokenizer
from tinygpt2.cli.main import main
from tinygpt2.config import PRESETS

Fails = Callable[..., None]

QUICK = ("--device", "cpu", "--context-length", "16", "--quiet")

# The beginning of Lu Xun's story, of 1919.
KONG_YIJI = """鲁镇的酒店的格局，是和别处不同的：都是当街一个曲尺形的大柜台，柜里面预备着热水，可以随时温酒。
做工的人，傍午傍晚散了工，每每花四文铜钱，买一碗酒，
——这是二十多年前的事，现在每碗要涨到十文，——靠柜外站着，热热的喝了休息；倘肯多花一文，便可以买一碟盐煮笋，或者茴香豆，做下酒物了，如果出到十几文，那就能买一样荤菜，但这些顾客，多是短衣帮，大抵没有这样阔绰。
只有穿长衫的，才踱进店面隔壁的房子里，要酒要菜，慢慢地坐喝。
我从十二岁起，便在镇口的咸亨酒店里当伙计，掌柜说，样子太傻，怕侍候不了长衫主顾，就在外面做点事罢。外面的短衣主顾，虽然容易说话，但唠唠叨叨缠夹不清的也很不少。
他们往往要亲眼看着黄酒从坛子里舀出，看过壶子底里有水没有，又亲看将壶子放在热水里，然后放心：在这严重监督之下，羼水也很为难。所以过了几天，掌柜又说我干不了这事。
幸亏荐头的情面大，辞退不得，便改为专管温酒的一种无聊职务了。
我从此便整天的站在柜台里，专管我的职务。虽然没有什么失职，但总觉得有些单调，有些无聊。掌柜是一副凶脸孔，主顾也没有好声气，教人活泼不得；只有孔乙己到店，才可以笑几声，所以至今还记得。
孔乙己是站着喝酒而穿长衫的唯一的人。他身材很高大；青白脸色，皱纹间时常夹些伤痕；一部乱蓬蓬的花白的胡子。穿的虽然是长衫，可是又脏又破，似乎十多年没有补，也没有洗。
他对人说话，总是满口之乎者也，叫人半懂不懂的。因为他姓孔，别人便从描红纸上的"上大人孔乙己"这半懂不懂的话里，替他取下一个绰号，叫作孔乙己。
"""


def made_names(count: int) -> list[str]:
    """Returns different names of two or three syllables, sorted."""
    rng = random.Random(0)  # noqa: S311
    names: set[str] = set()
    while len(names) < count:
        syllables = [rng.choice("bdfklmnrst") + rng.choice("aeio") for _ in range(rng.choice((2, 3)))]
        names.add("".join(syllables).capitalize())
    return sorted(names)


@pytest.fixture
def articles() -> list[str]:
    """A hundred short articles."""
    lines = [line for line in sample_text().splitlines() if len(line) > 60]
    return [f"{i}. {line}" for i, line in enumerate((lines * 5)[:100])]


def sizes(out: str) -> str:
    return next(line for line in out.splitlines() if " to train on, " in line)


def test_a_model_of_names_writes_names_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "gpt2-nano", {"n_layer": 2, "n_head": 2, "n_embd": 64})
    names = made_names(3000)
    corpus, run = tmp_path / "names.txt", tmp_path / "run"
    corpus.write_text("\n".join(names) + "\n", encoding="utf-8")
    words = [
        "--separator",
        r"\n",
        "--tokenizer",
        "char",
        "--batch-size",
        "16",
        "--max-steps",
        "150",
        "--sample-prompt",
        "",
    ]
    assert main(["train", str(corpus), "--out", str(run), *words, "--context-length", "32", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert sizes(captured.err).startswith("2,7")
    assert " --samples 10" in captured.out
    assert main(["generate", "--model", str(run), "--samples", "10", "--seed", "0", "--device", "cpu"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 10
    assert sum(len(name) in (4, 6) and name.istitle() and name.isalpha() for name in written) >= 7


def test_held_out_documents_are_drawn_from_all_of_a_sorted_list(
    tmp_path: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    corpus = tmp_path / "names.txt"
    corpus.write_text("\n".join(made_names(1000)), encoding="utf-8")
    words = [corpus, "--out", tmp_path / "run", "--separator", r"\n", "--tokenizer", "char", "--context-length", "16"]
    run = planned(*words)
    held_out = run.tokenizer.decode(run.val_data.tokens.tolist()).split("<|endoftext|>")
    assert {name[0] for name in held_out if name} == set("BDFKLMNRST")
    assert not set(held_out) & set(run.tokenizer.decode(run.train_data.tokens.tolist()).split("<|endoftext|>")) - {""}
    other = planned(*words, "--seed", "1")
    assert other.val_data.tokens.tolist() != run.val_data.tokens.tolist()


def test_what_is_learned_from_data_is_learned_from_the_training_part_alone(
    tmp_path: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    """A fifth of the held-out tokens existed only because the vocabulary had seen them."""
    words = ["--out", tmp_path / "run", "--context-length", "16"]
    training = sample_text()[: int(0.9 * len(sample_text()))]
    for kind in ("bpe", "trimmed", "char"):
        run = planned(*words, "--tokenizer", kind)
        unused = set(range(run.tokenizer.n_vocab)) - set(run.tokenizer.encode_ordinary(training))
        texts = [run.tokenizer.decode([i]) for i in unused - {run.tokenizer.eot_token}]
        assert not [text for text in texts if " " in text and text not in training], kind
        if kind == "char":
            assert set(run.tokenizer.characters) == set(training)


@pytest.mark.parametrize("kind", ["md", "jsonl.gz", "json.bz2", "csv", "tsv.xz", "txt"])
def test_every_form_of_documents_trains_the_same_model(
    kind: str, tmp_path: Path, articles: list[str], planned: Callable[..., SimpleNamespace]
) -> None:
    files, words = write(kind, articles, tmp_path), []
    if kind.startswith(("csv", "tsv")):
        words = ["--field", "body"]
    elif kind == "txt":
        words = ["--separator", "<|endoftext|>"]
    run = planned(*files, "--out", tmp_path / "run", "--tokenizer", "char", "--context-length", "16", *words)
    end = run.tokenizer.eot_token
    assert (run.train_data.tokens == end).sum() + (run.val_data.tokens == end).sum() == len(articles)
    written = run.tokenizer.decode([*run.train_data.tokens, *run.val_data.tokens]).split("<|endoftext|>")
    assert sorted(filter(None, written)) == sorted(articles)


def write(kind: str, articles: list[str], directory: Path) -> list[Path]:
    """Writes articles in one of the forms, and returns what to pass."""
    path = directory / f"corpus.{kind}"
    rows = [{"id": i, "body" if "sv" in kind else "text": article} for i, article in enumerate(articles)]
    match kind:
        case "md":
            for i, article in enumerate(articles):
                (directory / "pages" / f"{i % 7}").mkdir(parents=True, exist_ok=True)
                (directory / "pages" / f"{i % 7}" / f"{i}.md").write_text(article, encoding="utf-8")
            (directory / "pages" / ".hidden.md").write_text("nothing", encoding="utf-8")
            return [directory / "pages"]
        case "jsonl.gz":
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
        case "json.bz2":
            path.write_bytes(bz2.compress(json.dumps(rows).encode()))
        case "csv" | "tsv.xz":
            with (directory / "table").open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, ["id", "body"], delimiter="," if kind == "csv" else "\t")
                table.writeheader()
                table.writerows(rows)
            content = (directory / "table").read_bytes()
            path.write_bytes(content if kind == "csv" else lzma.compress(content))
        case "txt":
            path.write_text("<|endoftext|>".join(articles), encoding="utf-8")
    return [path]


def test_a_chinese_chapter_trains_and_writes_chinese(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chapter, run = tmp_path / "孔乙己.txt", tmp_path / "run"
    chapter.write_text(KONG_YIJI * 3, encoding="utf-8")
    words = ["--out", str(run), "--context-length", "16", "--epochs", "3", "--device", "cpu", "--sample-prompt", ""]
    assert main(["train", str(chapter), *words]) == 0
    said = capsys.readouterr().err
    assert "tokens a byte" in said  # of the tokenizer that was chosen, and of the others
    tokenizer = load_tokenizer(run)
    assert tokenizer.decode(tokenizer.encode_ordinary(KONG_YIJI)) == KONG_YIJI
    assert len(tokenizer.encode_ordinary(KONG_YIJI)) < 0.7 * len(gpt2_tokenizer().encode_ordinary(KONG_YIJI))
    assert main(["generate", "--model", str(run), "孔乙己是", "--seed", "0", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("孔乙己是")
    assert main(["generate", "--model", str(run), "天空 🦊", "--max-new-tokens", "1", "--device", "cpu"]) == 0


def test_a_single_text_goes_on_and_has_no_ends(tmp_path: Path, planned: Callable[..., SimpleNamespace]) -> None:
    story = tmp_path / "story.md"
    story.write_text(sample_text()[:5000], encoding="utf-8")
    run = planned(story, "--out", tmp_path / "run", "--tokenizer", "gpt2", "--context-length", "16")
    ids = [*run.train_data.tokens, *run.val_data.tokens]
    assert run.tokenizer.eot_token not in ids
    assert run.tokenizer.decode(ids) == sample_text()[:5000]
    assert run.config.sample_prompt  # which it has from the text


def test_of_several_files_each_is_a_document(tmp_path: Path, planned: Callable[..., SimpleNamespace]) -> None:
    files = [tmp_path / f"{i}.txt" for i in range(3)]
    for i, file in enumerate(files):
        file.write_text(f"Chapter {i}. " * 50, encoding="utf-8")
    run = planned(*files, "--out", tmp_path / "run", "--tokenizer", "gpt2", "--context-length", "16")
    ids = [*run.train_data.tokens, *run.val_data.tokens]
    assert ids.count(run.tokenizer.eot_token) == 4  # the last one is cut, and its beginning has an end
    assert run.config.sample_prompt == ""


def test_files_of_ones_own_to_validate_on(
    tmp_path: Path,
    articles: list[str],
    planned: Callable[..., SimpleNamespace],
    fails: Fails,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, articles)), encoding="utf-8")
    (tmp_path / "val.jsonl").write_text(
        "\n".join(map(json.dumps, ["something new " * 9, articles[3]])), encoding="utf-8"
    )
    common = [tmp_path / "train.jsonl", "--out", tmp_path / "run", "--tokenizer", "char", "--context-length", "16"]
    run = planned(*common, "--val", tmp_path / "val.jsonl")
    assert (run.train_data.tokens == run.tokenizer.eot_token).sum() == 100
    assert run.tokenizer.decode(run.val_data.tokens.tolist()) == "something new " * 9 + "<|endoftext|>"
    said = sizes(capsys.readouterr().err)
    assert said.startswith(
        "100 documents to train on, 1 documents to validate on; 1 that are also among those to train on"
    )
    assert run.options.val == (str(tmp_path / "val.jsonl"),)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "train.jsonl")
    for same in ("train.jsonl", "link.jsonl"):
        fails(
            ["train", *common, "--val", tmp_path / same], "is both among the files to train on and among those of --val"
        )
    fails(["train", *common, "--val", tmp_path], "is both among the files to train on")
    fails(["train", *common, "--val", tmp_path / "none.jsonl"], "none.jsonl")
    fails(["train", *common, "--train-ratio", "0.5", "--val", tmp_path / "val.jsonl"], "omit one of the two")


def test_token_files_with_documents_are_cut_between_two_and_joined(
    tmp_path: Path, articles: list[str], planned: Callable[..., SimpleNamespace], fails: Fails
) -> None:
    for i in range(2):
        (tmp_path / f"{i}.jsonl").write_text(
            "\n".join(map(json.dumps, articles[50 * i : 50 * i + 50])), encoding="utf-8"
        )
        assert main(["tokenize", str(tmp_path / f"{i}.jsonl"), "--out", str(tmp_path / f"{i}.tokens")]) == 0
    first = TokenFile(tmp_path / "0.tokens")
    assert first.documents == 50
    assert (first.tokens == gpt2_tokenizer().eot_token).sum() == 50
    words = [tmp_path / "0.tokens", tmp_path / "1.tokens", "--out", tmp_path / "run", "--context-length", "16"]
    run = planned(*words)
    assert run.options.tokenizer == "gpt2"
    assert run.config.sample_prompt == ""
    count = len(run.train_data) + len(run.val_data)
    assert abs(count - sum(len(TokenFile(tmp_path / f"{i}.tokens")) for i in range(2)) / 16) < 5
    alone = planned(tmp_path / "0.tokens", "--out", tmp_path / "run", "--context-length", "16")
    assert alone.train_data.tokens[-1] == gpt2_tokenizer().eot_token
    fails(["train", tmp_path / "0.tokens", tmp_path / "1.jsonl", "--out", tmp_path / "run"], "is a file of tokens, but")


def test_the_end_of_text_typed_in_a_text_is_text_and_a_note_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2's own format; the separator became 7 ordinary tokens, and no option made it one."""
    (tmp_path / "stories.txt").write_text("one story<|endoftext|>" * 200, encoding="utf-8")
    words = ["tokenize", str(tmp_path / "stories.txt"), "--out", str(tmp_path / "stories.tokens")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "note: <|endoftext|> in the text is ordinary text" in captured.err
    assert TokenFile(tmp_path / "stories.tokens").documents is None
    assert main([*words, "--separator", "<|endoftext|>"]) == 0
    tokens = TokenFile(tmp_path / "stories.tokens")
    assert (tokens.tokens == gpt2_tokenizer().eot_token).sum() == tokens.documents == 200
    assert capsys.readouterr().err == ""


def test_two_files_are_two_documents_in_a_file_of_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} story", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    files = [str(tmp_path / f"{name}.txt") for name in ("a", "empty", "b")]
    assert main(["tokenize", *files, "--out", str(tmp_path / "c.tokens")]) == 0
    assert (
        gpt2_tokenizer().decode(TokenFile(tmp_path / "c.tokens").tokens.tolist())
        == "a story<|endoftext|>b story<|endoftext|>"
    )
    captured = capsys.readouterr()
    assert "note: 1 empty document left out" in captured.err
    assert "of 2 documents" in captured.out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--separator", "§"], "the separator '§' is not in"),
        (["--tokenizer", "chr"], "nor the path of a tokenizer; did you mean char?"),
        (["--tokenizer", "char", "--vocab-size", "300"], "--vocab-size is for byte pairs"),
        (["--field", "body"], "body"),
    ],
)  # fmt: skip
def test_what_a_corpus_cannot_be_is_one_line(
    words: list[str], part: str, tmp_path: Path, articles: list[str], fails: Fails
) -> None:
    name = "a.jsonl" if "--field" in words else "a.txt"
    (tmp_path / name).write_text("\n".join(json.dumps({"text": article}) for article in articles), encoding="utf-8")
    fails(["train", tmp_path / name, "--out", tmp_path / "run", *words, *QUICK], part)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_ones_own(tmp_path: Path, planned: Callable[..., SimpleNamespace]) -> None:
    tokenizer = CharTokenizer.from_text(sample_text(), byte_fallback=True)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    for path in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "tokenizer.json"):
        run = planned("--out", tmp_path / "run", "--tokenizer", path, "--context-length", "16")
        assert run.tokenizer == tokenizer
        assert run.options.tokenizer == str(path)


@pytest.mark.parametrize("size", [300, 1000])
def test_the_size_of_a_vocabulary_can_be_chosen(
    size: int, tmp_path: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    for words in (["--vocab-size", size], ["--vocab-size", size, "--tokenizer", "bpe"]):
        run = planned("--out", tmp_path / "run", "--context-length", "16", *words)
        assert (run.tokenizer.n_vocab, run.options.tokenizer, run.options.vocab_size) == (size, "bpe", size)


def test_a_corpus_in_several_files_continues_and_trains(
    tmp_path: Path, articles: list[str], planned: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    source, shards = tmp_path / "articles.jsonl", tmp_path / "shards"
    source.write_text("\n".join(map(json.dumps, articles)), encoding="utf-8")
    words = ["tokenize", str(source), "--out", str(shards), "--shard-bytes", "5000"]
    assert main(words) == 0
    files = sorted(shards.iterdir())
    before = [file.read_bytes() for file in files]
    said = capsys.readouterr().out
    assert said.startswith(f"{shards}: {len(files)} files, ")
    assert "of 100 documents" in said
    files[-1].unlink()
    assert main(words) == 0
    assert capsys.readouterr().out == said
    assert [file.read_bytes() for file in files] == before
    run = planned(shards, "--out", tmp_path / "run", "--context-length", "16")
    tokens = sum(len(TokenFile(file)) for file in files)
    assert abs(len(run.train_data) + len(run.val_data) - tokens / 16) <= len(files) + 1


def test_tokens_of_a_tokenizer_of_ones_own_need_it(
    tmp_path: Path, planned: Callable[..., SimpleNamespace], fails: Fails
) -> None:
    tokenizer = CharTokenizer.from_text(sample_text())
    save_tokenizer(tokenizer, tmp_path / "own")
    (tmp_path / "text.txt").write_text(sample_text(), encoding="utf-8")
    tokens = tmp_path / "own.tokens"
    assert (
        main(["tokenize", str(tmp_path / "text.txt"), "--out", str(tokens), "--tokenizer", str(tmp_path / "own")]) == 0
    )
    train = [tokens, "--out", tmp_path / "run", "--context-length", "16"]
    fails(["train", *train], f"{tokens} was not made with GPT-2's tokenizer", "--tokenizer DIR")
    assert planned(*train, "--tokenizer", tmp_path / "own").tokenizer == tokenizer


def test_a_vocabulary_larger_than_the_text_supports_is_said_in_a_line(
    tmp_path: Path, text_file: Path, planned: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    run = planned(text_file, "--out", tmp_path / "run", "--context-length", "16", "--vocab-size", "5000")
    assert run.tokenizer.n_vocab < 400
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "--vocab-size" in note
