"""Files, directories, patterns and standard input: which files they name, in which order."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2.text.sources import find_sources, shared_files


def make(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name, encoding="utf-8")


def named(*paths: object) -> list[str]:
    """Returns the names of what paths name, with slashes."""
    found = find_sources(paths).sources  # type: ignore[arg-type]
    return ["-" if source.path is None else source.path.as_posix() for source in found]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- kinds ---


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"), ("a.TEXT", "text"), ("a.md", "text"), ("a.markdown", "text"), ("a.html", "text"),
        ("a", "text"), ("a.jsonl", "JSON lines"), ("a.ndjson", "JSON lines"), ("a.json", "JSON"), ("a.csv", "CSV"),
        ("a.tsv", "TSV"), ("a.parquet", "Parquet"), ("a.b.CSV.GZ", "CSV"), ("a.jsonl.bz2", "JSON lines"),
        ("a.json.xz", "JSON"), ("a.gz", "text"), (".gz", "text"), ("csv", "text"), ("a.csv.old", "text"),
    ],
)  # fmt: skip
def test_what_is_in_a_file_is_told_by_its_name(here: Path, name: str, kind: str) -> None:
    make(here, name)
    source = find_sources(name).sources[0]
    assert (source.kind, source.size) == (kind, len(name))


# --- directories ---


def test_a_directory_is_read_in_the_order_of_names_without_hidden_and_unknown_files(here: Path) -> None:
    make(
        here, "d/b.txt", "d/a/z.md", "d/a/B.txt", "d/a.jsonl.gz", "d/.hidden.txt", "d/.git/x.txt", "d/x.py", "d/c/y.bin"
    )
    found = find_sources("d")
    assert [source.path for source in found.sources] == [
        Path("d/a/B.txt"), Path("d/a/z.md"), Path("d/a.jsonl.gz"), Path("d/b.txt"),
    ]  # fmt: skip
    assert found.left_out == 2
    assert named("d/") == named(Path("d")) == named("d")


def test_a_directory_that_is_hidden_itself_is_read_if_it_is_named(here: Path) -> None:
    make(here, ".notes/a.md")
    assert named(".notes") == [".notes/a.md"]


def test_links_in_a_directory_lead_to_files_and_never_in_circles(here: Path) -> None:
    make(here, "elsewhere/a.txt", "d/b.txt")
    try:
        Path("d/a.txt").symlink_to(Path("elsewhere/a.txt").resolve())
        Path("d/circle").symlink_to(Path("d").resolve(), target_is_directory=True)
        Path("d/nowhere.txt").symlink_to("none")
    except OSError:
        pytest.skip("may not make links")
    assert named("d") == ["d/a.txt", "d/b.txt"]


def test_a_directory_without_a_text_says_which_endings_are_known(here: Path) -> None:
    make(here, "d/a.html", "d/sub/b.tar.gz")
    (here / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"the directory d has no file of a known ending among its 2; known are \.txt, "
    ) as e:
        find_sources("d")
    assert ".parquet, each also with .gz, .bz2, .xz, .zst." in str(e.value)
    assert str(Path("d/**/*.html")) in str(e.value)
    assert named("d/**/*.html") == ["d/a.html"]
    with pytest.raises(ValueError, match="the directory empty has no file of a known ending; known are"):
        find_sources("empty")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read anything")
def test_a_directory_that_may_not_be_read_is_told(here: Path) -> None:
    make(here, "d/a.txt", "d/closed/b.txt")
    (here / "d/closed").chmod(0)
    try:
        with pytest.raises(PermissionError, match=r"closed"):
            find_sources("d")
    finally:
        (here / "d/closed").chmod(0o700)


# --- patterns ---


def test_a_pattern_names_the_files_that_match_sorted(here: Path) -> None:
    make(here, "b.txt", "a.txt", "d/e/c.txt", "d/e/x.html", ".h.txt")
    assert named("*.txt") == ["a.txt", "b.txt"]
    assert named("**/*.txt") == ["a.txt", "b.txt", "d/e/c.txt"]
    assert named(here / "d/*/*") == [(here / name).as_posix() for name in ("d/e/c.txt", "d/e/x.html")]
    assert named("[ab].txt", "d/e/?.html") == ["a.txt", "b.txt", "d/e/x.html"]


def test_a_file_of_that_very_name_is_no_pattern(here: Path) -> None:
    make(here, "notes[1].txt", "notes1.txt")
    assert named("notes[1].txt") == ["notes[1].txt"]


def test_a_pattern_without_a_match_is_an_error(here: Path) -> None:
    (here / "d.txt").mkdir()
    with pytest.raises(ValueError, match=r"no file matches \*\.txt; .* searched in "):
        find_sources("*.txt")


def test_a_missing_file_has_a_name_like_another(here: Path) -> None:
    make(here, "book.txt")
    with pytest.raises(FileNotFoundError, match=r"did you mean book\.txt\?"):
        find_sources(["book.txt", "bok.txt"])


# --- several ---


def test_a_file_that_is_named_again_is_read_once(here: Path) -> None:
    make(here, "d/a.txt", "d/b.txt")
    found = find_sources(["d/b.txt", "d", "d/*.txt", "d/../d/a.txt"])
    assert [source.path for source in found.sources] == [Path("d/b.txt"), Path("d/a.txt")]
    assert found.repeated == 4


def test_standard_input_is_a_text_without_a_size_and_named_once(here: Path) -> None:
    make(here, "a.txt")
    assert named("a.txt", "-") == ["a.txt", "-"]
    assert find_sources("-").sources[0].size is None
    with pytest.raises(ValueError, match=r"standard input \(-\) can be read once"):
        find_sources(["-", "a.txt", "-"])
    with pytest.raises(FileNotFoundError):
        find_sources(Path("-"))  # a file of that name
    make(here, "-")
    assert named(Path("-")) == ["-"]
    assert find_sources(Path("-")).sources[0].path == Path("-")


@pytest.mark.parametrize("paths", [b"a.txt", 3, None, {"a.txt": 1}, {"a.txt"}, [b"a.txt"], [3], [["a.txt"]]], ids=repr)
def test_what_is_no_path_is_refused(paths: object) -> None:
    with pytest.raises(TypeError, match=r"paths(\[0\])? must be a path"):
        find_sources(paths)  # type: ignore[arg-type]
    with (
        Path(__file__).open(encoding="utf-8") as file,
        pytest.raises(TypeError, match="paths must be a path or several"),
    ):
        find_sources(file)


def test_no_path_is_refused() -> None:
    with pytest.raises(ValueError, match="paths names no file; pass at least one"):
        find_sources([])
    with pytest.raises(ValueError, match=r"paths\[0\] must be the path"):
        find_sources("")


# --- shared files ---


def files(*paths: object) -> list[Path | None]:
    return [source.path for source in find_sources(paths).sources]  # type: ignore[arg-type]


def test_files_that_two_lists_share_are_found_under_any_name(here: Path) -> None:
    make(here, "d/a.txt", "d/b.txt", "c.txt")
    try:
        Path("link.txt").symlink_to("d/b.txt")
    except OSError:
        pytest.skip("may not make links")
    assert shared_files(files("d"), files("c.txt")) == []
    assert shared_files(files("d"), files("link.txt")) == [Path("d/b.txt")]
    assert shared_files(files(here / "d/*.txt"), files("d/../d", "c.txt")) == [here / "d/a.txt", here / "d/b.txt"]
    assert shared_files(files("-", "c.txt"), files("-")) == [None]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("texts")
    make(directory, *(f"{name}.txt" for name in "abcdef"))
    return directory


@given(first=st.sets(st.sampled_from("abcdef"), min_size=1), second=st.sets(st.sampled_from("abcdef"), min_size=1))
def test_shared_files_are_the_intersection(texts: Path, first: set[str], second: set[str]) -> None:
    lists = [files(*(texts / f"{name}.txt" for name in sorted(names))) for names in (first, second)]
    assert shared_files(*lists) == [texts / f"{name}.txt" for name in sorted(first & second)]
