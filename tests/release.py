"""Builds the wheel and the sdist, checks them, and tries them in environments of their own.

Run ``python tests/release.py``; it installs packages, so it needs a package index. The wheel is tried with the lowest
versions that ``pyproject.toml`` allows, the sdist with the newest. PyTorch is that of ``constraints.txt`` in both.
"""

import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LARGEST = 1_000_000  # bytes of the wheel


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def build(directory: Path) -> tuple[Path, Path]:
    """Returns the sdist, and the wheel that was built from it."""
    run(sys.executable, "-m", "build", "--outdir", directory)
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    run(sys.executable, "-m", "check_wheel_contents", wheel)
    return sdist, wheel


def check_contents(wheel: Path) -> None:
    """Fails if the wheel is too large, or is not the package with its data and licences."""
    source = ROOT / "src"
    expected = {str(path.relative_to(source).as_posix()) for path in (source / "tinygpt2").rglob("*") if path.is_file()}
    expected = {name for name in expected if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    expected |= {f"{about}/licenses/LICENSE", f"{about}/licenses/NOTICE", f"{about}/METADATA"}
    if missing := expected - names:
        sys.exit(f"The wheel lacks {sorted(missing)}")
    if more := {name for name in names - expected if not name.startswith(f"{about}/")}:
        sys.exit(f"The wheel has files that are not in src: {sorted(more)}")
    if wheel.stat().st_size > LARGEST:
        sys.exit(f"The wheel has {wheel.stat().st_size} bytes, more than {LARGEST}")


def lowest() -> list[str]:
    """Returns the dependencies in the lowest versions that are allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = [*project["dependencies"], *project["optional-dependencies"]["plot"]]
    return [requirement.replace(">=", "==") for requirement in allowed if not requirement.startswith("torch>")]


def torch() -> str:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def smoke(package: Path, dependencies: list[str], directory: Path) -> None:
    """Installs a package and trains and generates with it, where nothing of the repository is in reach."""
    venv.create(directory, with_pip=True)
    scripts = directory / ("Scripts" if sys.platform == "win32" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", f"{package}[plot]", torch(), *dependencies)
    run(scripts / "tinygpt2", "train", "--max-steps", "2", "--out", "model", cwd=directory)
    run(scripts / "tinygpt2", "generate", "--model", "model", "In the summer of 1914", cwd=directory)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sdist, wheel = build(directory / "dist")
        check_contents(wheel)
        for package, dependencies in ((wheel, lowest()), (sdist, list[str]())):
            start = time.monotonic()
            smoke(package, dependencies, directory / f"with-{package.name}")
            print(f"{package.name} works ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
