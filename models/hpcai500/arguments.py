"""Options that several subcommands have, and their conversion."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.benchmark.plans import assignments, possible, targets
from models.benchmark.record import Conditions
from tfkfac import options as option_kinds
from tfkfac.errors import InputError, unknown
from tfkfac.options import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Kind

SIZES = ("tiny", "small", "reference")  # of models.workloads, which would import TensorFlow
OPTIMIZERS = ("sgd", "adamw", "muon", "kfac")
CAP = Kind(
    "a number above 0, or none",
    lambda value: None if value == "none" else option_kinds.number(value),
    lambda value: value is None or value > 0,
)


def value(kind: Kind, text: Any, option: str) -> Any:
    """An option's value from its text; None stays None.

    Raises:
        InputError: if the option takes no such value.
    """
    if text is None:
        return None
    return option_kinds.convert(option_kinds.option(kind, 0, ""), text, option)


def several(kind: Kind, texts: Sequence[str], option: str) -> tuple[Any, ...]:
    """The values of an option that takes several, each once, in their order.

    Texts may be lists with commas, too.
    """
    words = [word for text in texts for word in text.split(",") if word]
    if not words:
        raise InputError(f"{option}: expected {kind.expected}, not nothing")
    return tuple(dict.fromkeys(value(kind, word, option) for word in words))


def chosen(names: Sequence[str], known: Sequence[str], what: str, where: str) -> tuple[str, ...]:
    """Names, each once, in their order; all that are known if there are none.

    Raises:
        InputError: if one is unknown.
    """
    words = [word for name in names for word in name.split(",") if word]
    for word in words:
        if word not in known:
            raise unknown(what, word, known, where)
    return tuple(dict.fromkeys(words)) or tuple(known)


def add_choice(parser: Any) -> None:
    """What to train: workloads, their size, data and optimizers."""
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help="see `hpcai500 list` (default: all that have examples)",
    )
    group = parser.add_argument_group("what to train")
    group.add_argument(
        "--size",
        default="small",
        metavar="{tiny,small,reference}",
        help="of networks and data (default: small)",
    )
    group.add_argument(
        "--optimizers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of sgd, adamw, muon, kfac (default: all)",
    )
    group.add_argument("--epochs", metavar="N", help="at most (default: the workload's)")
    group.add_argument(
        "--steps",
        metavar="N",
        help="between evaluations, to measure speed (default: all examples once)",
    )
    group.add_argument(
        "--batch-size", metavar="N", help="examples of a step (default: the workload's)"
    )
    group.add_argument(
        "--target",
        nargs="+",
        default=[],
        metavar="WORKLOAD=VALUE",
        help="quality at which the clock stops, none for none, or a YAML file of "
        "such lines (default: the workload's)",
    )
    group.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="WORKLOAD=PATH",
        help="original files (default: generated examples)",
    )


def add_conditions(parser: Any) -> None:
    """How trials are run and reckoned."""
    group = parser.add_argument_group("how it is run and reckoned")
    group.add_argument(
        "--cache", metavar="DIR", help="for generated examples (default: ~/.cache/tfkfac)"
    )
    group.add_argument(
        "--threads", metavar="N", help="of a process (default: cores divided by ranks)"
    )
    group.add_argument("--price-per-hour", metavar="X", help="of all machines together")
    group.add_argument("--currency", default="USD", metavar="NAME", help="(default: USD)")
    group.add_argument(
        "--watts",
        metavar="X",
        help="of all machines together under load: estimates energy where there are "
        "no counters (default: it is unavailable then)",
    )
    group.add_argument(
        "--vflops-exponent",
        default="5",
        metavar="X",
        help="n in FLOPS (quality / target)^n (default: 5)",
    )
    group.add_argument(
        "--vflops-cap", default="1", metavar="X", help="of quality / target, or none (default: 1)"
    )


def conditions(options: argparse.Namespace) -> Conditions:
    """The conditions that the options of `add_conditions` describe.

    Raises:
        InputError: naming the option.
    """
    cache = None if options.cache is None else str(Path(options.cache).resolve())
    if cache is not None and Path(cache).exists() and not Path(cache).is_dir():
        raise InputError(f"--cache {cache}: not a directory")
    return Conditions(
        cache,
        value(COUNT, options.threads, "--threads"),
        value(NOT_NEGATIVE, options.price_per_hour, "--price-per-hour"),
        options.currency,
        value(POSITIVE, options.watts, "--watts"),
        value(NOT_NEGATIVE, options.vflops_exponent, "--vflops-exponent"),
        value(CAP, options.vflops_cap, "--vflops-cap"),
    )


def choice(options: argparse.Namespace, known: Sequence[str]) -> dict[str, Any]:
    """What `plans.Request` takes from the options of `add_choice`.

    Args:
        options: parsed.
        known: all workloads.

    Raises:
        InputError: naming the option.
    """
    if options.size not in SIZES:
        raise unknown("size", options.size, SIZES, "--size")
    data = assignments(options.data, "--data")
    names = chosen(options.workloads, known, "workload", "hpcai500")
    values: dict[str, Any] = {
        "workloads": names if options.workloads else possible(names, options.size, data),
        "optimizers": chosen(options.optimizers, OPTIMIZERS, "optimizer", "--optimizers"),
        "size": options.size,
        "epochs": value(COUNT, options.epochs, "--epochs"),
        "steps": value(COUNT, options.steps, "--steps"),
        "batch_size": value(COUNT, options.batch_size, "--batch-size"),
        "targets": targets(options.target),
        "data": data,
    }
    for name in names:
        if name not in values["workloads"]:
            print(f"{name}: left out, it reads original files; see --data", file=sys.stderr)
    return values


def seed(text: str, option: str = "--seed") -> int:
    """A seed."""
    return value(SEED, text, option)
