"""The errors that end a command with one line instead of a traceback."""


class InputError(ValueError):
    """An option, a configuration or a data file is wrong (exit code 2).

    The message is one line that names the option, file and line, and says what is expected.
    """


class TrainingError(RuntimeError):
    """A training cannot go on, though its input was in order (exit code 1)."""
