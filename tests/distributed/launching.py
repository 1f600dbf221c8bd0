"""Starting the workers of these tests under `horovodrun`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(
    ranks: int, module: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m tests.distributed.MODULE` on several ranks of this machine."""
    launcher = Path(sys.executable).with_name("horovodrun")
    command = [str(launcher), "-np", str(ranks), "--gloo", sys.executable]
    command += ["-m", f"tests.distributed.{module}", *arguments]
    variables = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3", **environment)
    variables.setdefault("HOROVOD_DYNAMIC_PROCESS_SETS", "1")
    # A loaded machine may take long to start all ranks; tests of absent ones set their own.
    variables.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", "300")
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
