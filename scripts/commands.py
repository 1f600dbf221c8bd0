"""Running commands: progress on the screen, output in a log, errors as one message."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from checkout import ROOT


class SetupError(Exception):
    """What stops the setup, as one message for the user."""


class CommandError(SetupError):
    """A command ended with an error; its output is in a log."""


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
