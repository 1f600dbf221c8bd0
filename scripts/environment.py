"""Make the project's environments: pinned packages, and Horovod built for their TensorFlow.

There are two: .venv, and .venv-addons with the last TensorFlow that tensorflow-addons knows
(``--addons``). Run it through ``make setup`` (or scripts/setup.sh, which finds a suitable Python).
It needs only the standard library. Every run brings the environment up to date and costs a
fraction of a second when nothing is to be done. An interrupted run is repaired by the next one.

.venv/setup.json     what a finished setup was made from
.venv/setup.partial  there while packages change; found at the start, the environment is remade
.cache/wheels        Horovod wheels, one folder per Python, TensorFlow and set of build options
.cache/horovod.json  the build options, where `make horovod` was given any
.cache/logs          full output of pip and of the compiler
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
HOROVOD_OPTIONS = CACHE / "horovod.json"
FORWARDING_HEADERS = ROOT / "scripts" / "horovod_include"


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


MAIN = Environment(
    venv=ROOT / ".venv",
    constraints=ROOT / "constraints.txt",
    pythons=("3.11", "3.12", "3.13"),
    packages=("--editable", ".[nmt,test]"),
    helped=True,
    horovod_target="horovod",
    logs=CACHE / "logs",
)
ADDONS = Environment(
    venv=ROOT / ".venv-addons",
    constraints=ROOT / "constraints-addons.txt",
    pythons=("3.10", "3.11"),
    packages=("--editable", ".[addons]", "pytest", "hypothesis"),
    helped=False,
    horovod_target="horovod-addons",
    logs=CACHE / "logs" / "addons",
)

# What the user may set for Horovod's own build (its installation guide lists them).
HOROVOD_BUILD_VARIABLES = re.compile(r"HOROVOD_(WITH|GPU|CPU|CUDA|ROCM|NCCL|MPI|CCL|BUILD|ALLOW)")
HOROVOD_RUNTIME_NEEDS = ("cloudpickle", "packaging", "psutil", "pyyaml")
HOROVOD_BUILD_DEFAULTS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
}


class SetupError(Exception):
    """What stops the setup, as one message for the user."""


class CommandError(SetupError):
    """A command ended with an error; its output is in a log."""


# ---------------------------------------------------------------- commands with visible progress


class Progress:
    """One line that shows what is going on: rewritten on a terminal, repeated now and then else."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.started = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.last_printed = self.started

    def show(self, detail: str) -> None:
        seconds = int(time.monotonic() - self.started)
        line = f"{self.task}: {seconds // 60}:{seconds % 60:02d} {detail}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="", flush=True)
        elif time.monotonic() - self.last_printed >= 20:
            self.last_printed = time.monotonic()
            print(line, flush=True)

    def finish(self, outcome: str) -> None:
        seconds = int(time.monotonic() - self.started)
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}{self.task}: {outcome} ({seconds // 60}:{seconds % 60:02d})", flush=True)


def run(
    task: str,
    command: list[str | Path],
    log: Path,
    describe: Callable[[str], str | None],
    variables: dict[str, str] | None = None,
    note: str = "",
) -> None:
    """Run a command with its output in a log and its progress on the screen.

    Args:
        task: What the user sees being done.
        command: Program and arguments.
        log: File that receives stdout and stderr; overwritten.
        describe: Gets each line of output; returns what to show from now on, or None for no change.
        variables: Environment variables besides the inherited ones.
        note: What the user should know before it starts.

    Raises:
        CommandError: The command ended with a status other than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(task)
    print(f"{task} ({note}log: {log.relative_to(ROOT)})", flush=True)
    detail = ""
    with log.open("wb") as output, log.open(errors="replace") as lines:
        # A session of its own, so that an interrupt can end the compilers as well.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment() | (variables or {}),
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                for line in lines:
                    detail = describe(line) or detail
                progress.show(detail)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            progress.finish("stopped")
            raise
    if process.returncode != 0:
        progress.finish("FAILED")
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise CommandError("\n".join([*tail, f"setup: {task} failed. Full output: {log}"]))
    progress.finish("done")


def child_environment() -> dict[str, str]:
    """The inherited environment without what would lead pip or Python out of .venv."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PIP_TARGET"}
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    return variables | {
        "PYTHONNOUSERSITE": "1",
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def pip_install(
    target: Environment, task: str, arguments: Sequence[str | Path], log: str, note: str = ""
) -> None:
    """``pip install`` under the constraints, with the current download shown."""
    command: list[str | Path] = [target.python, "-m", "pip", "install"]
    command += ["--constraint", target.constraints]
    run(task, [*command, *arguments], target.logs / log, PipOutput().describe, note=note)


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


# ------------------------------------------------------------------------------------- packages


def pinned(target: Environment, package: str) -> str:
    """The version that the constraints give a package."""
    for line in target.constraints.read_text().splitlines():
        name, separator, version = line.partition("==")
        if separator and name.strip().lower() == package:
            return version.strip()
    raise SetupError(f"setup: {target.constraints} has no line '{package}==VERSION'; add it")


def own_version() -> str:
    """The version of the Python that runs this script."""
    return "{}.{}".format(*sys.version_info)


def inputs(target: Environment) -> dict[str, str]:
    """What the packages in the environment depend on."""
    digest = hashlib.sha256()
    for file in (target.constraints, ROOT / "setup.py"):
        digest.update(file.read_bytes())
    return {"folder": str(ROOT), "requirements": digest.hexdigest()}


def read_record(file: Path) -> dict[str, str]:
    """What an earlier run wrote, or nothing."""
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(file: Path, record: dict[str, str]) -> None:
    """Write for later runs, all or nothing."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.replace(file)


@contextlib.contextmanager
def changing_packages(target: Environment) -> Iterator[None]:
    """Leave a mark while pip writes into it: what it has half written, it does not notice."""
    target.partial.touch()
    yield
    target.partial.unlink()


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


# -------------------------------------------------------------------------------------- Horovod


def choose_horovod_options() -> None:
    """Take Horovod's build options from the environment, and keep them for later runs."""
    chosen = {k: v for k, v in os.environ.items() if HOROVOD_BUILD_VARIABLES.match(k)}
    options = dict(HOROVOD_BUILD_DEFAULTS)
    for name in chosen:
        options.pop(name.replace("_WITH_", "_WITHOUT_"), None)
        options.pop(name.replace("_WITHOUT_", "_WITH_"), None)
    write_record(HOROVOD_OPTIONS, options | chosen)


def horovod_options() -> dict[str, str]:
    """The build options of this checkout."""
    return read_record(HOROVOD_OPTIONS) or HOROVOD_BUILD_DEFAULTS


def horovod_identity(target: Environment, python_version: str) -> str:
    """Names a Horovod build: wheels of one name are interchangeable."""
    details = hashlib.sha256(repr(sorted(horovod_options().items())).encode())
    if target.helped:
        for header in sorted(FORWARDING_HEADERS.rglob("*.h")):
            details.update(header.read_bytes())
    return "-".join(
        [
            f"horovod{pinned(target, 'horovod')}",
            f"tensorflow{pinned(target, 'tensorflow')}",
            f"python{python_version}",
            platform.machine(),
            details.hexdigest()[:8],
        ]
    )


def horovod_obstacle() -> str | None:
    """Why Horovod cannot be built on this machine, with what to do about it, or None."""
    compiler = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
    install = "Debian, Ubuntu: apt install build-essential; Fedora: dnf install gcc-c++ make"
    if not any(shutil.which(name) for name in compiler):
        return f"no C++ compiler ({', '.join(compiler)}) was found ({install})"
    if not shutil.which("make") and not shutil.which("gmake"):
        return f"make was not found ({install})"
    if re.search(r"\s", str(ROOT)):
        return f"its build does not stand a blank in the path {ROOT} (move the folder)"
    return None


def parallel_jobs() -> int:
    """As many compilers as there are cores, with 2 GB of memory each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, memory // 2**31))


def build_horovod_wheel(target: Environment, folder: Path) -> Path:
    """Build Horovod from its source distribution for the TensorFlow in the environment.

    CMake 4 refuses the old CMake files. Two more things are missing for TensorFlow 2.21: some of
    its own headers lie outside the include path that it reports, and one has moved.

    Args:
        target: The environment.
        folder: Where the wheel goes.

    Returns:
        The wheel.
    """
    work = CACHE / "horovod-build"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    pip_install(
        target,
        "Fetching CMake for the build",
        ["--target", work / "tools", f"cmake=={pinned(target, 'cmake')}"],
        "cmake.log",
    )

    def describe(line: str) -> str | None:
        if line.lstrip().startswith("-- "):
            return "configuring"
        percent = re.match(r"\s*\[ *(\d+)%\]", line)
        return f"{percent[1]} %" if percent else None

    variables = {
        "HOROVOD_CMAKE": str(work / "tools" / "cmake" / "data" / "bin" / "cmake"),
        "MAKEFLAGS": f"-j{parallel_jobs()}",
        "TMPDIR": str(work / "tmp"),
    }
    if target.helped:
        variables["CPATH"] = os.pathsep.join(map(str, missing_headers(target)))
    version = pinned(target, "horovod")
    run(
        f"Building Horovod {version}",
        [
            *(target.python, "-m", "pip", "wheel", "--verbose", "--no-deps"),
            *("--no-build-isolation", "--no-cache-dir", "--no-binary=horovod"),
            *("--wheel-dir", work / "wheel", f"horovod=={version}"),
        ],
        target.logs / "horovod.log",
        describe,
        horovod_options() | variables,
        note="once, about 5 minutes on 2 cores; ",
    )
    (built,) = (work / "wheel").glob("horovod-*.whl")
    folder.mkdir(parents=True, exist_ok=True)
    wheel = built.replace(folder / built.name)
    shutil.rmtree(work)
    return wheel


def missing_headers(target: Environment) -> list[Path]:
    """Folders of headers that Horovod would not find in TensorFlow 2.21."""
    find_tensorflow = "from importlib.util import find_spec; print(find_spec('tensorflow').origin)"
    origin = subprocess.check_output(
        [target.python, "-c", find_tensorflow], env=child_environment(), text=True
    )
    external = Path(origin.strip()).parent / "include" / "external"
    return [FORWARDING_HEADERS, external / "highwayhash", external / "farmhash_archive" / "src"]


def install_horovod(target: Environment, identity: str) -> None:
    """Install Horovod from the cached wheel, or from a new one, and see that it loads."""
    folder = CACHE / "wheels" / identity
    with changing_packages(target):
        pip_install(
            target, "Installing what Horovod needs", HOROVOD_RUNTIME_NEEDS, "horovod-needs.log"
        )
    wheel = next(folder.glob("horovod-*.whl"), None) or build_horovod_wheel(target, folder)
    with changing_packages(target):
        try:
            pip_install(
                target,
                f"Installing Horovod {pinned(target, 'horovod')}",
                ["--force-reinstall", "--no-deps", wheel],
                "horovod-install.log",
            )
            run(
                "Loading Horovod",
                [
                    target.python,
                    "-c",
                    "import horovod.tensorflow as hvd; hvd.init(); print(hvd.size())",
                ],
                target.logs / "horovod-load.log",
                lambda line: None,
            )
        except CommandError:
            shutil.rmtree(folder)
            subprocess.run(
                [target.python, "-m", "pip", "uninstall", "--quiet", "--yes", "horovod"],
                env=child_environment(),
                check=False,
            )
            target.partial.unlink()
            raise


def provide_horovod(target: Environment, state: dict[str, str], *, retry: bool) -> dict[str, str]:
    """Bring Horovod up to date; nothing that goes wrong here stops the rest.

    Args:
        target: The environment.
        state: What the last finished setup recorded.
        retry: Whether to build what could not be built before.

    Returns:
        The state, with the build that is installed or the reason why none is.
    """
    identity = horovod_identity(target, state["python"])
    if state.get("horovod") == identity:
        return state
    known_failure = state.get("horovod_failed") == identity and not retry
    packages = {k: v for k, v in state.items() if not k.startswith("horovod")}
    try:
        if known_failure:
            raise SetupError(state["horovod_reason"])
        if obstacle := horovod_obstacle():
            raise SetupError(obstacle)
        install_horovod(target, identity)
    except SetupError as error:
        *detail, reason = str(error).splitlines()
        reason = reason.removeprefix("setup: ")
        warning = (
            f"WARNING: Horovod is not installed: {reason}",
            "All that runs in one process works; tests that need several processes are skipped.",
            f"To try again: make {target.horovod_target}",
        )
        print(*detail, *warning, sep="\n", file=sys.stderr)
        return packages | {"horovod_failed": identity, "horovod_reason": reason}
    return packages | {"horovod": identity}


# ----------------------------------------------------------------------------------------- main


@contextlib.contextmanager
def one_setup_at_a_time() -> Iterator[None]:
    """Hold the lock of this checkout."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another setup is at work in this folder; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(target: Environment, *, horovod: bool, retry_horovod: bool) -> None:
    """Bring an environment up to date."""
    state = read_record(target.state)
    current = inputs(target)
    other_python = os.environ.get("PYTHON") and state.get("python") != own_version()
    finished = os.access(target.python, os.X_OK) and not target.partial.exists()
    if not finished or other_python or not current.items() <= state.items():
        provide_venv(target)
        install_packages(target)
        python = venv_python_version(target) or own_version()
        state = read_record(target.state) | current | {"python": python}
        write_record(target.state, state)
    if horovod:
        write_record(target.state, provide_horovod(target, state, retry=retry_horovod))


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/setup.sh",
        description="Make or update .venv; quick when nothing is to be done.",
    )
    parser.add_argument(
        "--addons",
        action="store_true",
        help="the environment with tensorflow-addons, .venv-addons, instead",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--without-horovod", action="store_true", help="leave Horovod as it is")
    choice.add_argument(
        "--horovod",
        action="store_true",
        help="build Horovod even if that failed before, with the HOROVOD_* options now set",
    )
    options = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    try:
        with one_setup_at_a_time():
            if options.horovod:
                choose_horovod_options()
            set_up(
                ADDONS if options.addons else MAIN,
                horovod=not options.without_horovod,
                retry_horovod=options.horovod,
            )
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next run takes it up again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
