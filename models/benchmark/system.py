"""What a result was measured on: hardware, software, source and threads, as a JSON object."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "tfkfac"
SOURCE = Path(__file__).resolve().parents[2]
LIBRARIES = ("tensorflow", "keras", "numpy", "horovod", PACKAGE)
# What changes how fast the same program is on the same machine.
VARIABLES = (
    "OMP_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "HOROVOD_DYNAMIC_PROCESS_SETS",
)


def describe(gpus: tuple[str, ...] = (), threads: int | None = None) -> dict[str, Any]:
    """Hardware and software of this process.

    Args:
        gpus: names of the devices that it uses.
        threads: that it was told to use; None where TensorFlow chooses.
    """
    return {
        "host": platform.node(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "machine_cores": os.cpu_count(),
        "memory": memory(),
        "gpus": list(gpus),
        "threads": threads,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "source": source(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "load": os.getloadavg()[0],
    }


def processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, by Linux or else by Python."""
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process's TensorFlow uses."""
    import tensorflow as tf

    devices = tf.config.get_visible_devices("GPU")
    details = (tf.config.experimental.get_device_details(device) for device in devices)
    return tuple(detail.get("device_name", "unknown") for detail in details)


def memory() -> int | None:
    """Bytes of main memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def versions() -> dict[str, str]:
    """Versions of the installed libraries that matter, without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def source(folder: Path = SOURCE) -> dict[str, Any] | None:
    """The commit that runs, and whether tracked files differ from it; None outside of git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None  # another project's repository, around an installed package
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return {"commit": git("rev-parse", "HEAD"), "changed": changed}
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory() -> int | None:
    """Bytes that this process has held at most; None where the system does not say.

    A process's `ru_maxrss` begins with that of the program that started it; Linux counts the
    program alone, too.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # no Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
