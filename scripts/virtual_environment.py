"""A virtual environment: made with the Python that runs this, and filled with pinned packages."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from checkout import CACHE, ROOT, read_record
from commands import SetupError, child_environment, run


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment to make.

    Attributes:
        venv: Its folder.
        constraints: File with the versions of all its packages.
        pythons: Versions of Python that it may have.
        packages: What pip is to install.
        helped: Whether Horovod finds its TensorFlow's headers only with help.
        horovod_target: What to `make` to build its Horovod again.
        logs: Folder for the output of pip and of the compiler.
    """

    venv: Path
    constraints: Path
    pythons: tuple[str, ...]
    packages: tuple[str, ...]
    helped: bool
    horovod_target: str
    logs: Path

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def state(self) -> Path:
        return self.venv / "setup.json"

    @property
    def partial(self) -> Path:
        return self.venv / "setup.partial"


def own_version() -> str:
    """The version of the Python that runs this script."""
    return "{}.{}".format(*sys.version_info)


def venv_python_version(target: Environment) -> str | None:
    """The version of an environment that works and holds pip, else None."""
    try:
        answer = subprocess.run(
            [target.python, "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"],
            env=child_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def provide_venv(target: Environment) -> None:
    """Keep an environment that can be kept, make it anew otherwise."""
    venv, name = target.venv, target.venv.name
    present = venv_python_version(target)
    wanted = own_version() if os.environ.get("PYTHON") else present
    moved = read_record(target.state).get("folder", str(ROOT)) != str(ROOT)
    unfinished = target.partial.exists()
    if not unfinished and not moved and present == wanted and present in target.pythons:
        return
    if venv.exists():
        if any(venv.iterdir()) and not (venv / "pyvenv.cfg").exists() and not unfinished:
            raise SetupError(f"setup: {venv} is not a virtual environment; move it away")
        print(f"Removing {name}: it is unfinished, moved or of another Python", flush=True)
        # Renamed first: half removed, it would be taken for something that is not ours.
        removed = CACHE / f"removed-{name.removeprefix('.')}"
        shutil.rmtree(removed, ignore_errors=True)
        venv.rename(removed)
        shutil.rmtree(removed)
    venv.mkdir()
    target.partial.touch()
    # Not sys.executable: with the environment activated, that was in the folder just removed.
    interpreter = getattr(sys, "_base_executable", sys.executable)
    run(
        f"Making {name} with Python {own_version()}",
        [interpreter, "-m", "venv", venv],
        target.logs / "venv.log",
        lambda line: None,
    )


def pinned(target: Environment, package: str) -> str:
    """The version that the constraints give a package."""
    for line in target.constraints.read_text().splitlines():
        name, separator, version = line.partition("==")
        if separator and name.strip().lower() == package:
            return version.strip()
    raise SetupError(f"setup: {target.constraints} has no line '{package}==VERSION'; add it")


@contextlib.contextmanager
def changing_packages(target: Environment) -> Iterator[None]:
    """Leave a mark while pip writes into it: what it has half written, it does not notice."""
    target.partial.touch()
    yield
    target.partial.unlink()


class PipOutput:
    """Turns pip's lines into a short description of what it does."""

    def __init__(self) -> None:
        self.download = ""

    def describe(self, line: str) -> str | None:
        words = line.split()
        match words:
            case ["Downloading", file, *size]:
                self.download = f"downloading {file.rsplit('/', 1)[-1]} {' '.join(size)}"
                return self.download
            case ["Progress", done, "of", total] if done.isdigit() and total.isdigit():
                return f"{self.download} {100 * int(done) // max(int(total), 1)} %"
            case ["Collecting", requirement, *_]:
                return f"collecting {requirement}"
            case ["Installing", "collected", "packages:", *_]:
                return "unpacking"
        return None


def pip_install(
    target: Environment, task: str, arguments: Sequence[str | Path], log: str, note: str = ""
) -> None:
    """``pip install`` under the constraints, with the current download shown."""
    command: list[str | Path] = [target.python, "-m", "pip", "install"]
    command += ["--constraint", target.constraints]
    run(task, [*command, *arguments], target.logs / log, PipOutput().describe, note=note)


def install_packages(target: Environment) -> None:
    """Install the pinned packages, and the project itself in editable form."""
    with changing_packages(target):
        tools = [f"{tool}=={pinned(target, tool)}" for tool in ("pip", "setuptools")]
        pip_install(target, "Installing pip and setuptools", tools, "tools.log")
        pip_install(
            target,
            "Installing the pinned packages",
            ["--progress-bar=raw", "--no-build-isolation", *target.packages],
            "packages.log",
            note="the first time, about 700 MB to download; ",
        )
