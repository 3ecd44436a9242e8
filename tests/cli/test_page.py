"""``tinygpt2 page``."""

import base64
import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygpt2.cli import phases
from tinygpt2.cli.main import main

FAST = ("--tokenizer", "char", "--context-length", "16", "--device", "cpu")


def part(page: Path, name: str) -> bytes | None:
    """Returns one of the packed parts of a page."""
    found = re.search(rf'<script type="text/plain" id="{name}">([\w+/=]*)</script>', page.read_text(encoding="utf-8"))
    return zlib.decompress(base64.b64decode(found[1]), wbits=-15) if found else None


def data(page: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(part(page, "data") or b"")
    return content


@pytest.fixture
def run(run_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_directory, tmp_path / "fox"))


def test_it_writes_a_page_with_what_the_run_knows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{run / 'page.html'}\n"
    assert re.fullmatch(r"a page of 0\.\d MB, without the text of its training; open it in a browser\n", captured.err)
    found = data(run / "page.html")
    assert found["title"] == "fox"
    assert found["prompt"] == "The quick brown fox"
    assert found["report"]["order"] == 4
    assert found["history"]["steps"][0] == 0
    assert not found["hasText"]
    assert part(run / "page.html", "text") is None


def test_the_text_is_in_the_page_only_if_that_is_asked_for(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "with.html"
    assert main(["page", str(run), "--include-text", "--out", str(page)]) == 0
    assert data(page)["hasText"]
    assert (part(page, "text") or b"").startswith(b"The quick brown fox jumps over the lazy dog.")
    assert not (run / "page.html").exists()


def test_a_text_that_cannot_be_read_again_is_one_line(run: Path, fails: Callable[..., None]) -> None:
    options = json.loads((run / "options.json").read_text(encoding="utf-8"))
    for files, said in ((["-"], "got its text through a pipe"), (["no-such-file.txt"], "no-such-file.txt")):
        (run / "options.json").write_text(json.dumps(options | {"files": files}), encoding="utf-8")
        fails(["page", run, "--include-text"], said)
    (run / "options.json").unlink()
    fails(["page", run, "--include-text"], "has no options.json")
    assert main(["page", str(run)]) == 0


def test_another_model_has_a_page_too(plain_characters: Path, tmp_path: Path) -> None:
    assert main(["page", str(plain_characters), "--out", str(tmp_path / "page.html")]) == 0
    found = data(tmp_path / "page.html")
    assert (found["prompt"], found["history"], found["report"], found["snapshots"]) == ("", None, None, [])


def test_a_student_has_the_past_of_its_first_teacher(run: Path) -> None:
    """It began as that one, so its losses alone would not begin with random weights."""
    alone = run.parent / "alone.html"
    assert main(["page", str(run), "--out", str(alone)]) == 0
    shutil.copytree(run, run / "teacher-1")
    assert main(["page", str(run)]) == 0
    before, after = data(alone)["history"], data(run / "page.html")["history"]
    last = before["steps"][-1]
    assert after["steps"] == before["steps"] + [last + step for step in before["steps"][1:]]
    assert after["validation"] == before["validation"] + before["validation"][1:]


def test_a_page_has_the_snapshots_that_its_run_kept(run: Path) -> None:
    """A small model's run keeps eight by default, from before the first step to after the last."""
    assert main(["page", str(run)]) == 0
    steps = data(run / "page.html")["snapshots"]
    assert len(steps) == 8
    assert (steps[0], steps[-1]) == (0, data(run / "page.html")["history"]["steps"][-1])
    sizes = {len(part(run / "page.html", f"snapshot-{i}") or b"") for i in range(8)}
    assert sizes == {len(part(run / "page.html", "weights") or b"")}
    assert part(run / "page.html", "snapshot-8") is None


def test_a_students_snapshots_follow_those_of_its_first_teacher(text_file: Path, tmp_path: Path) -> None:
    words = ["--teachers", "2", "--epochs", "2", "--student-steps", "9", "--preset", "gpt2-nano", "--snapshots", "8"]
    assert main(["train", str(text_file), "--out", str(tmp_path / "run"), "--quiet", *words, *FAST]) == 0
    assert not (tmp_path / "run" / "teacher-2" / "snapshots").exists()
    assert main(["page", str(tmp_path / "run")]) == 0
    found = data(tmp_path / "run" / "page.html")
    begin = found["history"]["steps"][-1] - 9
    assert len(found["snapshots"]) == 8
    assert found["snapshots"][5:] == [begin, begin + 3, begin + 9]


def test_a_run_keeps_no_snapshots_if_none_are_wanted_or_the_model_is_large(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", str(text_file), "--quiet", "--preset", "gpt2-nano", "--max-steps", "2", *FAST]
    assert main([*words, "--out", str(tmp_path / "a"), "--snapshots", "0"]) == 0
    assert not (tmp_path / "a" / "snapshots").exists()
    monkeypatch.setattr(phases, "SMALL", 1000)
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert not (tmp_path / "b" / "snapshots").exists()


def test_a_directory_without_a_model_is_one_line(tmp_path: Path, fails: Callable[..., None]) -> None:
    fails(["page", tmp_path], str(tmp_path))
    fails(["page", tmp_path / "no"], "no")
