"""Make the project's environments: pinned packages, and Horovod built for their TensorFlow.

There are two: .venv, and .venv-addons with the last TensorFlow that tensorflow-addons knows
(``--addons``). Run it through ``make setup`` (or scripts/setup.sh, which finds a suitable Python).
It needs only the standard library. Every run brings the environment up to date and costs a
fraction of a second when nothing is to be done. An interrupted run is repaired by the next one.
Of checkout.py, commands.py, virtual_environment.py, horovod_build.py and this file, each imports
only those before it.

.venv/setup.json     what a finished setup was made from
.venv/setup.partial  there while packages change; found at the start, the environment is remade
.cache/wheels        Horovod wheels, one folder per Python, TensorFlow and set of build options
.cache/horovod.json  the build options, where `make horovod` was given any
.cache/logs          full output of pip and of the compiler
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys

from checkout import CACHE, ROOT, one_setup_at_a_time, read_record, write_record
from commands import SetupError
from horovod_build import choose_horovod_options, provide_horovod
from virtual_environment import (
    Environment,
    install_packages,
    own_version,
    provide_venv,
    venv_python_version,
)

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


def inputs(target: Environment) -> dict[str, str]:
    """What the packages in the environment depend on."""
    digest = hashlib.sha256()
    for file in (target.constraints, ROOT / "setup.py"):
        digest.update(file.read_bytes())
    return {"folder": str(ROOT), "requirements": digest.hexdigest()}


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
