"""Make the project's environment: .venv with pinned packages, and Horovod built for it.

Run it through ``make setup`` (or scripts/setup.sh, which finds a suitable Python). It needs only
the standard library. Every run brings the environment up to date and costs a fraction of a second
when nothing is to be done. An interrupted run is repaired by the next one.

.venv/setup.json     what a finished setup was made from
.venv/setup.partial  there while packages change; found at the start, the environment is remade
.cache/wheels        Horovod wheels, one folder per Python, TensorFlow and set of build options
.cache/horovod.json  the build options, where `make horovod` was given any
.cache/logs          full output of pip and of the compiler
"""

from __future__ import annotations

import argparse
import contextlib
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
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CACHE = ROOT / ".cache"
LOGS = CACHE / "logs"
CONSTRAINTS = ROOT / "constraints.txt"
STATE = VENV / "setup.json"
PARTIAL = VENV / "setup.partial"
HOROVOD_OPTIONS = CACHE / "horovod.json"
FORWARDING_HEADERS = ROOT / "scripts" / "horovod_include"
SUPPORTED_PYTHONS = ("3.11", "3.12", "3.13")

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


def pip_install(task: str, arguments: Sequence[str | Path], log: str, note: str = "") -> None:
    """``pip install`` under the constraints, with the current download shown."""
    command: list[str | Path] = [PYTHON, "-m", "pip", "install", "--constraint", CONSTRAINTS]
    run(task, [*command, *arguments], LOGS / log, PipOutput().describe, note=note)


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


def pinned(package: str) -> str:
    """The version that constraints.txt gives a package."""
    for line in CONSTRAINTS.read_text().splitlines():
        name, separator, version = line.partition("==")
        if separator and name.strip().lower() == package:
            return version.strip()
    raise SetupError(f"setup: {CONSTRAINTS} has no line '{package}==VERSION'; add it")


def own_version() -> str:
    """The version of the Python that runs this script."""
    return "{}.{}".format(*sys.version_info)


def inputs() -> dict[str, str]:
    """What the packages in .venv depend on."""
    digest = hashlib.sha256()
    for file in (CONSTRAINTS, ROOT / "setup.py"):
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
def changing_packages() -> Iterator[None]:
    """Leave a mark while pip writes into .venv: what it has half written, it does not notice."""
    PARTIAL.touch()
    yield
    PARTIAL.unlink()


def venv_python_version() -> str | None:
    """The version of a .venv that works and holds pip, else None."""
    try:
        answer = subprocess.run(
            [PYTHON, "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"],
            env=child_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def provide_venv() -> None:
    """Keep a .venv that can be kept, make it anew otherwise."""
    present = venv_python_version()
    wanted = own_version() if os.environ.get("PYTHON") else present
    moved = read_record(STATE).get("folder", str(ROOT)) != str(ROOT)
    if not PARTIAL.exists() and not moved and present == wanted and present in SUPPORTED_PYTHONS:
        return
    if VENV.exists():
        if any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").exists() and not PARTIAL.exists():
            raise SetupError(f"setup: {VENV} is not a virtual environment; move it away")
        print("Removing .venv: it is unfinished, moved or of another Python", flush=True)
        # Renamed first: half removed, it would be taken for something that is not ours.
        removed = CACHE / "removed-venv"
        shutil.rmtree(removed, ignore_errors=True)
        VENV.rename(removed)
        shutil.rmtree(removed)
    VENV.mkdir()
    PARTIAL.touch()
    # Not sys.executable: with .venv activated, that was in the folder just removed.
    interpreter = getattr(sys, "_base_executable", sys.executable)
    run(
        f"Making .venv with Python {own_version()}",
        [interpreter, "-m", "venv", VENV],
        LOGS / "venv.log",
        lambda line: None,
    )


def install_packages() -> None:
    """Install the pinned packages, and the project itself in editable form."""
    with changing_packages():
        tools = [f"{tool}=={pinned(tool)}" for tool in ("pip", "setuptools")]
        pip_install("Installing pip and setuptools", tools, "tools.log")
        pip_install(
            "Installing the pinned packages",
            ["--progress-bar=raw", "--no-build-isolation", "--editable", ".[nmt,test]"],
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


def horovod_identity(python_version: str) -> str:
    """Names a Horovod build: wheels of one name are interchangeable."""
    details = hashlib.sha256(repr(sorted(horovod_options().items())).encode())
    for header in sorted(FORWARDING_HEADERS.rglob("*.h")):
        details.update(header.read_bytes())
    return "-".join(
        [
            f"horovod{pinned('horovod')}",
            f"tensorflow{pinned('tensorflow')}",
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


def build_horovod_wheel(folder: Path) -> Path:
    """Build Horovod from its source distribution for the TensorFlow in .venv.

    Three things are missing for TensorFlow 2.21: CMake 4 refuses the old CMake files, some of
    TensorFlow's own headers lie outside the include path that it reports, and one has moved.

    Args:
        folder: Where the wheel goes.

    Returns:
        The wheel.
    """
    work = CACHE / "horovod-build"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    pip_install(
        "Fetching CMake for the build",
        ["--target", work / "tools", f"cmake=={pinned('cmake')}"],
        "cmake.log",
    )
    find_tensorflow = "from importlib.util import find_spec; print(find_spec('tensorflow').origin)"
    origin = subprocess.check_output(
        [PYTHON, "-c", find_tensorflow], env=child_environment(), text=True
    )
    external = Path(origin.strip()).parent / "include" / "external"
    includes = [FORWARDING_HEADERS, external / "highwayhash", external / "farmhash_archive" / "src"]

    def describe(line: str) -> str | None:
        if line.lstrip().startswith("-- "):
            return "configuring"
        percent = re.match(r"\s*\[ *(\d+)%\]", line)
        return f"{percent[1]} %" if percent else None

    run(
        f"Building Horovod {pinned('horovod')}",
        [
            *(PYTHON, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation"),
            *("--no-cache-dir", "--no-binary=horovod", "--wheel-dir", work / "wheel"),
            f"horovod=={pinned('horovod')}",
        ],
        LOGS / "horovod.log",
        describe,
        horovod_options()
        | {
            "CPATH": os.pathsep.join(map(str, includes)),
            "HOROVOD_CMAKE": str(work / "tools" / "cmake" / "data" / "bin" / "cmake"),
            "MAKEFLAGS": f"-j{parallel_jobs()}",
            "TMPDIR": str(work / "tmp"),
        },
        note="once, about 5 minutes on 2 cores; ",
    )
    (built,) = (work / "wheel").glob("horovod-*.whl")
    folder.mkdir(parents=True, exist_ok=True)
    wheel = built.replace(folder / built.name)
    shutil.rmtree(work)
    return wheel


def install_horovod(identity: str) -> None:
    """Install Horovod from the cached wheel, or from a new one, and see that it loads."""
    folder = CACHE / "wheels" / identity
    with changing_packages():
        pip_install("Installing what Horovod needs", HOROVOD_RUNTIME_NEEDS, "horovod-needs.log")
    wheel = next(folder.glob("horovod-*.whl"), None) or build_horovod_wheel(folder)
    with changing_packages():
        try:
            pip_install(
                f"Installing Horovod {pinned('horovod')}",
                ["--force-reinstall", "--no-deps", wheel],
                "horovod-install.log",
            )
            run(
                "Loading Horovod",
                [PYTHON, "-c", "import horovod.tensorflow as hvd; hvd.init(); print(hvd.size())"],
                LOGS / "horovod-load.log",
                lambda line: None,
            )
        except CommandError:
            shutil.rmtree(folder)
            subprocess.run(
                [PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "horovod"],
                env=child_environment(),
                check=False,
            )
            PARTIAL.unlink()
            raise


def provide_horovod(state: dict[str, str], *, retry: bool) -> dict[str, str]:
    """Bring Horovod up to date; nothing that goes wrong here stops the rest.

    Args:
        state: What the last finished setup recorded.
        retry: Whether to build what could not be built before.

    Returns:
        The state, with the build that is installed or the reason why none is.
    """
    identity = horovod_identity(state["python"])
    if state.get("horovod") == identity:
        return state
    known_failure = state.get("horovod_failed") == identity and not retry
    packages = {k: v for k, v in state.items() if not k.startswith("horovod")}
    try:
        if known_failure:
            raise SetupError(state["horovod_reason"])
        if obstacle := horovod_obstacle():
            raise SetupError(obstacle)
        install_horovod(identity)
    except SetupError as error:
        *detail, reason = str(error).splitlines()
        reason = reason.removeprefix("setup: ")
        warning = (
            f"WARNING: Horovod is not installed: {reason}",
            "All that runs in one process works; tests that need several processes are skipped.",
            "To try again: make horovod",
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


def set_up(*, horovod: bool, retry_horovod: bool) -> None:
    """Bring .venv up to date."""
    state = read_record(STATE)
    current = inputs()
    other_python = os.environ.get("PYTHON") and state.get("python") != own_version()
    finished = os.access(PYTHON, os.X_OK) and not PARTIAL.exists()
    if not finished or other_python or not current.items() <= state.items():
        provide_venv()
        install_packages()
        state = read_record(STATE) | current | {"python": venv_python_version() or own_version()}
        write_record(STATE, state)
    if horovod:
        write_record(STATE, provide_horovod(state, retry=retry_horovod))


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/setup.sh",
        description="Make or update .venv; quick when nothing is to be done.",
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
            set_up(horovod=not options.without_horovod, retry_horovod=options.horovod)
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
