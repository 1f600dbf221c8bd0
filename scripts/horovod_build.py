"""Horovod for an environment: its build options, its wheels, and what is missing for a build."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from checkout import CACHE, ROOT, read_record, write_record
from commands import CommandError, SetupError, child_environment, run
from virtual_environment import Environment, changing_packages, pinned, pip_install

HOROVOD_OPTIONS = CACHE / "horovod.json"
FORWARDING_HEADERS = ROOT / "scripts" / "horovod_include"
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


def missing_headers(target: Environment) -> list[Path]:
    """Folders of headers that Horovod would not find in TensorFlow 2.21."""
    find_tensorflow = "from importlib.util import find_spec; print(find_spec('tensorflow').origin)"
    origin = subprocess.check_output(
        [target.python, "-c", find_tensorflow], env=child_environment(), text=True
    )
    external = Path(origin.strip()).parent / "include" / "external"
    return [FORWARDING_HEADERS, external / "highwayhash", external / "farmhash_archive" / "src"]


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
