"""What every command shares, tried in a process of its own: exit codes and quiet ends."""

import subprocess
import sys

SCRIPT = """
import sys
from tfkfac.command_line import exit_code
from tfkfac.errors import InputError

def command():
    {body}

sys.exit(exit_code(command))
"""


def run(body, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_a_reader_that_went_away_ends_the_command_quietly():
    process = run("[print('line') for _ in range(10**6)]")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        for body in ("print('short')", "[print('line') for _ in range(10**5)]"):
            process = subprocess.run(
                [sys.executable, "-c", SCRIPT.format(body=body)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr == (
                "error: standard output: cannot be written (No space left on device)\n"
            )
            assert process.returncode == 2


def test_wrong_input_is_one_line():
    output, error = run("raise InputError('a.txt:3: no')").communicate()
    assert (output, error) == ("", "error: a.txt:3: no\n")
