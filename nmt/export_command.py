"""The command `nmt-export`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nmt import documented
from nmt.decoding.options import DecodingOptions
from nmt.export import directory
from nmt.model_directory import ModelDirectory
from nmt.translation import models
from nmt.translation.models import Models
from tfkfac.command_line import Parser, add_option, add_options, exit_code, quiet_tensorflow
from tfkfac.errors import InputError
from tfkfac.options import FLAG, TEXT, from_flags, one_of, option

DESCRIPTION = """\
Export a trained model for programs that do without this toolkit. The new directory holds the model,
its subwords, and translate.py, which goes from text to text with them; its README.md says more.

savedmodel    a TensorFlow SavedModel of stock operations, ids to ids with beam search inside, for
              all models and ensembles
ctranslate2   a model of CTranslate2, a fast decoder, for a single Transformer; int8 makes it much
              smaller, and faster still, for slightly other translations"""
EXAMPLES = """\
examples:
  nmt-export --model model --out exported
  nmt-export --model model --out exported --format ctranslate2 --quantization int8
  python exported/translate.py < text.de > text.en"""
QUANTIZATIONS = ("float32", "int8", "int16", "float16", "bfloat16", "int8_float32", "int8_float16")
# A search is exported: nothing is drawn at random. Attention has an option of its own.
_LEFT_OUT = ("sample", "temperature", "top_k", "top_p", "seed", "attention")


@dataclass(frozen=True)
class Options:
    """What is written."""

    out: str | None = option(TEXT, None, "directory to make")
    format: str = option(one_of(*directory.FORMATS), "savedmodel", "what reads the export")
    quantization: str = option(
        one_of(*QUANTIZATIONS), "float32", "ctranslate2: numbers that matrices are stored in"
    )
    return_attention: bool = option(
        FLAG, False, "savedmodel: also give attention weights, for alignments"
    )
    overwrite: bool = option(FLAG, False, "replace an export that is there already")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 2 (wrong input) or 130 (interrupted).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    result = Parser(
        prog="nmt-export",
        usage="nmt-export --model DIR [DIR ...] --out DIR [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    models.add_options(result, leave_out=("batch_size", "threads"))
    group = result.add_argument_group("output")
    add_options(group, Options)
    group = result.add_argument_group("search (for ctranslate2, what translate.py does by default)")
    for known in documented.options_of(DecodingOptions, leave_out=_LEFT_OUT).values():
        add_option(group, known)
    return result


def _run(arguments: Sequence[str] | None) -> None:
    flags = vars(parser().parse(arguments))
    options = from_flags(Options, flags)
    attention = options.return_attention
    decoding = documented.from_flags(DecodingOptions, flags, attention=attention)
    if options.out is None:
        raise InputError("--out: missing; give --out DIRECTORY, the directory to make")
    if options.quantization != "float32" and options.format != "ctranslate2":
        raise InputError("--quantization: needs --format ctranslate2")
    path = Path(options.out)
    directory.check_new(path, options.overwrite)
    chosen = Models.of(flags)
    if options.format == "ctranslate2":
        _check_ctranslate2(chosen, decoding)
    with directory.new_directory(path, options.overwrite) as temporary:
        export(options, decoding, chosen, temporary)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    kind = options.quantization if options.format == "ctranslate2" else "stock operations"
    print(f"{path}: {options.format}, {kind}, {size / 1e6:.1f} MB")


def export(options: Options, decoding: DecodingOptions, chosen: Models, path: Path) -> None:
    """Writes an export into an existing directory.

    Raises:
        InputError: if a model's weights are damaged.
    """
    longest = int(max(chosen.max_source + 1, decoding.longest(float(chosen.max_source + 1))))
    readable = [ModelDirectory(path).read().longest for path in chosen.directories]
    positions = min([longest, *(most + 1 for most in readable if most is not None)])
    described = directory.Export(
        options.format,
        chosen.source,
        chosen.target,
        decoding,
        chosen.max_source,
        positions,
        {name: metadata.version(name) for name in ("tfkfac", "tensorflow", "keras")},
        options.quantization if options.format == "ctranslate2" else None,
    )
    described.write(path)
    loaded = chosen.load()
    if options.format == "ctranslate2":
        from nmt.export import ctranslate2_model

        ctranslate2_model.save(
            loaded[0],
            chosen.source,
            chosen.target,
            path / "model",
            positions=positions,
            quantization=options.quantization,
            allow_unknown=decoding.allow_unknown,
        )
        return
    with quiet_tensorflow():
        import tensorflow as tf

        from nmt.export import saved_model
    try:
        saved_model.save(loaded, decoding, path / "model")
    except tf.errors.OpError as error:  # as on a full disk
        # "{{node ...}} FILE; REASON [Op:...]"
        reason = str(error.message).splitlines()[0].split(" [Op:")[0].split("; ")[-1]
        raise InputError(f"--out {options.out}: cannot be written ({reason})") from error


def _check_ctranslate2(chosen: Models, decoding: DecodingOptions) -> None:
    if len(chosen.directories) > 1:
        raise InputError("--format ctranslate2: takes a single model; savedmodel takes ensembles")
    config: Any = ModelDirectory(chosen.directories[0]).read().model_config
    if config.architecture != "transformer":
        raise InputError(
            f"--format ctranslate2: {chosen.directories[0]} is an {config.architecture.upper()}, "
            "and CTranslate2 knows no recurrent networks; use --format savedmodel"
        )
    if decoding.attention:
        raise InputError(
            "--return-attention: only for savedmodel; CTranslate2 has an option of that name when "
            "it translates"
        )
    try:
        metadata.version("ctranslate2")
    except metadata.PackageNotFoundError:
        raise InputError(
            "--format ctranslate2: needs the package ctranslate2; pip install ctranslate2"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
