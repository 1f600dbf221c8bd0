"""The command `tfkfac-plan`: what K-FAC would cost on machines that are not here."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkfac import costs, machine, options, plan_output
from tfkfac.command_line import Parser, add_option, exit_code, quiet_tensorflow
from tfkfac.costs import Prediction, Scheme
from tfkfac.errors import InputError, unknown
from tfkfac.files import replacing
from tfkfac.layer_costs import Layer, Workload
from tfkfac.machine import Machine
from tfkfac.options import COUNT, FLAG, POSITIVE, TEXT, Kind, one_of
from tfkfac.placement import FACTOR_WISE, HYBRID, LAYER_WISE
from tfkfac.plan import BLOCKS, DIAGONAL, Side
from tfkfac.ranks import launched_as_first, start

CALIBRATE = "calibrate"
DESCRIPTION = """\
Predict what a K-FAC training step costs on many ranks: who decomposes what, how even the
loads are, what travels, and where the time goes. MODEL is one of
  {}
or a saved .keras file, or module:function with a function that returns a Keras model (or
a model and an example batch of its inputs). The step is traced, not executed.

`tfkfac-plan calibrate --out machine.yaml` measures this machine instead."""
EXAMPLES = """\
examples:
  tfkfac-plan resnet50 --machine v100-cluster --ranks 16,64,256
  tfkfac-plan resnet50 --placement sc20-factor-wise,factor-wise,hybrid --plot scaling.png
  tfkfac-plan model.keras --batch-size 64 --refresh-above 512 --half --json > plan.json
  tfkfac-plan calibrate --out machine.yaml
  horovodrun -np 4 tfkfac-plan calibrate --out four-ranks.yaml

machines that come with it: {}"""

# The baselines of Pauloski et al. (SC20): dealt in turn, whole factors in float32.
_SC20 = {"round_robin": True, "triangles": False, "half": False, "refresh_above": None}
PLACEMENTS: dict[str, dict[str, Any]] = {
    FACTOR_WISE: {"placement": FACTOR_WISE},
    LAYER_WISE: {"placement": LAYER_WISE},
    HYBRID: {"placement": HYBRID},
    "sc20-factor-wise": {"placement": FACTOR_WISE, **_SC20},
    "sc20-layer-wise": {"placement": LAYER_WISE, **_SC20},
}


def _listed(value: Any) -> tuple[str, ...]:
    return tuple(item.strip() for item in str(value).split(","))


def _increasing_counts(value: Any) -> tuple[int, ...]:
    return tuple(sorted({int(item) for item in _listed(value)}))


def _size(value: Any) -> int | None:
    return None if value == "none" else int(str(value))


RANKS = Kind(
    "whole numbers above 0 such as 4,8,16",
    _increasing_counts,
    lambda counts: min(counts) > 0,
    metavar="N,N,...",
)
NAMES = Kind("names such as factor-wise,hybrid", _listed, metavar="NAME,...")
FACTOR_SIZE = Kind("a whole number above 0, or none", _size, lambda size: size is None or size > 0)
WORKERS = Kind("a number above 0, at most 1", options.number, lambda value: 0 < value <= 1)


def _option(group: str, kind: Kind, default: Any, help: str) -> Any:
    return options.option(kind, default, help, group)


@dataclass(frozen=True)
class PlanOptions:
    """The options of one plan; `tfkfac-plan --help` tells what each means.

    Raises:
        InputError: A value is out of range, or two options contradict each other.
    """

    ranks: tuple[int, ...] = _option("plan", RANKS, (1, 2, 4, 8, 16, 32, 64), "numbers of ranks")
    machine: str = _option(
        "plan", TEXT, "cpu-2-cores", "YAML file, or the name of one that comes with it"
    )
    batch_size: int = _option("plan", COUNT, 32, "examples of one rank in a step")
    length: int | None = _option(
        "plan", COUNT, None, "for dimensions that the model leaves open, such as tokens"
    )
    training_seconds: float | None = _option(
        "plan",
        POSITIVE,
        None,
        "measured seconds of a step without K-FAC on one rank, instead of an estimate",
    )

    placement: tuple[str, ...] = _option(
        "distribution",
        NAMES,
        (FACTOR_WISE,),
        f"one or more of {', '.join(PLACEMENTS)}; the last two are the SC20 paper's program: "
        "dealt in turn, whole float32 factors",
    )
    gradient_worker_fraction: float = _option(
        "distribution", WORKERS, 0.5, "hybrid: share of the ranks that precondition a layer"
    )
    balance: str = _option("distribution", one_of("time", "memory"), "time", "what is dealt evenly")
    cost: str = _option(
        "distribution",
        one_of("cube", "seconds"),
        "cube",
        "of a decomposition when dealing: n³ as KFAC has it, or the machine's seconds",
    )
    together: bool = _option("distribution", FLAG, False, "keep a layer's two factors on one rank")
    refresh_above: int | None = _option(
        "distribution", COUNT, None, "KFAC's option: refresh bases of larger orders together"
    )
    triangles: bool = _option(
        "distribution", FLAG, True, "send half of each symmetric factor, as KFAC does"
    )
    half: bool = _option("distribution", FLAG, False, 'factor_compression="float16"')

    factor_interval: int = _option("kfac", COUNT, 10, "steps between updates of the factors")
    eigen_interval: int = _option("kfac", COUNT, 100, "steps between their decompositions")
    method: str = _option("kfac", one_of("eigen", "inverse"), "eigen", "bases, or inverses")
    max_factor_size: int | None = _option(
        "kfac", FACTOR_SIZE, 8192, "largest order of a dense factor, or none for no bound"
    )
    oversized: str = _option(
        "kfac", one_of(DIAGONAL, BLOCKS), DIAGONAL, "structure of larger factors"
    )
    elementwise: str = _option(
        "kfac", one_of("diagonal", "plain"), "diagonal", "scale-and-shift parameters"
    )

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            options.check(option, getattr(self, option.name))
        for name in self.placement:
            if name not in PLACEMENTS:
                raise unknown("placement", name, PLACEMENTS, "--placement")
        if self.refresh_above is not None and self.method == "inverse":
            raise InputError("--refresh-above: only eigenbases can be refreshed, not inverses")

    def schemes(self) -> dict[str, Scheme]:
        """What each of the placements stands for, by name."""
        common = {
            "gradient_worker_fraction": self.gradient_worker_fraction,
            "together": self.together,
            "balance": self.balance,
            "by_seconds": self.cost == "seconds",
            "triangles": self.triangles,
            "half": self.half,
            "refresh_above": self.refresh_above,
            "method": self.method,
            "factor_interval": self.factor_interval,
            "eigen_interval": self.eigen_interval,
        }
        return {name: Scheme(**{**common, **PLACEMENTS[name]}) for name in self.placement}


GROUPS = {"plan": "plan", "distribution": "distribution", "kfac": "K-FAC"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 2 (wrong input), 130 (interrupted) or 141 (nobody reads the output).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [CALIBRATE]:
        return exit_code(lambda: _calibrate(given[1:]))
    return exit_code(lambda: _plan(given))


def parser() -> Parser:
    """The options of a plan."""
    result = Parser(
        prog="tfkfac-plan",
        usage="tfkfac-plan MODEL [options]\n       tfkfac-plan calibrate [options]",
        description=DESCRIPTION.format(", ".join(built_in_models()) or "(models is missing)"),
        epilog=EXAMPLES.format(", ".join(machine.machine_names())),
        argument_default=argparse.SUPPRESS,
    )
    result.add_argument("model", metavar="MODEL", help="see above")
    groups = {name: result.add_argument_group(title) for name, title in GROUPS.items()}
    for option in dataclasses.fields(PlanOptions):
        add_option(groups[option.metadata["group"]], option)
    output = result.add_argument_group("output")
    for flag, meaning in {
        "--per-rank": "also print what each rank does",
        "--json": "print JSON instead of tables",
    }.items():
        output.add_argument(flag, action="store_true", default=False, help=meaning)
    output.add_argument(
        "--plot", metavar="FILE", default=None, help="draw scaling curves: .png, .pdf or .svg"
    )
    return result


def calibration_parser() -> Parser:
    """The options of a calibration."""
    result = Parser(
        prog="tfkfac-plan calibrate",
        description="Measure this machine and write its description; under horovodrun also the "
        "links between its ranks. Takes half a minute, and wants an idle machine.",
    )
    result.add_argument("--out", required=True, metavar="FILE", help="YAML file to write")
    result.add_argument("--name", metavar="TEXT", help="of the machine, for tables")
    result.add_argument(
        "--orders",
        default="32,64,128,256,512,1024",
        metavar="N,N,...",
        help="of the eigendecompositions to time (default: 32,64,128,256,512,1024); beyond the "
        "largest their time is taken to grow like n³",
    )
    return result


def built_in_models() -> tuple[str, ...]:
    """Names of reference networks, none if the package `models` is not installed."""
    try:
        from models.config import CIFAR_MODELS, IMAGENET_MODELS
    except ImportError:
        return ()
    return (*CIFAR_MODELS, *IMAGENET_MODELS)


def make_plan(
    workload: Workload, description: Machine, plan: PlanOptions
) -> list[tuple[str, Prediction]]:
    """A prediction for each number of ranks and placement.

    Raises:
        InputError: The machine's description lacks a link.
    """
    return [
        (name, costs.predict(workload, description, ranks, scheme, plan.training_seconds))
        for ranks in plan.ranks
        for name, scheme in plan.schemes().items()
    ]


def _plan(arguments: Sequence[str]) -> None:
    given = vars(parser().parse(arguments))
    model, per_rank, as_json = given.pop("model"), given.pop("per_rank"), given.pop("json")
    picture = None if (name := given.pop("plot")) is None else Path(name)
    fields = {option.name: option for option in dataclasses.fields(PlanOptions)}
    plan = PlanOptions(
        **{
            name: options.convert(fields[name], value, f"--{name.replace('_', '-')}")
            for name, value in given.items()
        }
    )
    description = machine.read(machine.find(plan.machine))
    if picture is not None:
        plan_output.check_picture(picture)
    # All that can be wrong shows before the model is loaded, which takes long.
    probe = Workload((Layer("probe", Side(2), Side(2), positions=1),), 4, 1.0)
    make_plan(probe, description, plan)
    known = built_in_models()
    if model not in known and ":" not in model and not model.endswith(".keras"):
        error = unknown("model", model, known, "MODEL")
        raise InputError(f"{error}; also taken: a saved .keras file, module:function")
    with _status(f"tracing a training step of {model}"):
        workload = _trace(model, known, plan, description)
    predictions = make_plan(workload, description, plan)
    title = f"{model}, {plan.batch_size} examples a rank, {description.name}"
    if as_json:
        rows = [plan_output.as_json(name, prediction) for name, prediction in predictions]
        print(json.dumps({"model": model, "machine": description.name, "plans": rows}, indent=1))
    else:
        print(title)
        print(f"factors every {plan.factor_interval} steps, bases every {plan.eigen_interval}")
        print(plan_output.tables(predictions))
        if per_rank:
            for name, prediction in predictions:
                print(plan_output.rank_table(name, prediction))
    if picture is not None:
        plan_output.plot(title, predictions, picture)


def _trace(model: str, known: Sequence[str], plan: PlanOptions, description: Machine) -> Workload:
    with quiet_tensorflow():
        from tfkfac import model_trace
        from tfkfac.planning import Layout
    layout = Layout(plan.max_factor_size, plan.oversized, plan.elementwise)
    subject = model_trace.load(model, known)
    workload = model_trace.trace(
        subject, plan.batch_size, plan.length, layout, count_factors=not description.gpu
    )
    if not workload.layers:
        raise InputError(f"{model}: K-FAC finds nothing to precondition in its training step")
    return workload


def _calibrate(arguments: Sequence[str]) -> None:
    given = calibration_parser().parse(arguments)
    out = Path(given.out)
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: no directory {out.parent}")
    try:
        orders = RANKS.parse(given.orders)
    except ValueError:
        orders = (0,)
    if not RANKS.valid(orders):
        raise InputError(f"--orders: expected {RANKS.expected}, not {given.orders!r}")
    with quiet_tensorflow():
        from tfkfac import calibration
    ranks = start(horovod=False)
    horovod = importlib.import_module("horovod.tensorflow") if ranks.size > 1 else None
    with _status("calibrating") as show:
        measured = calibration.measure(given.name, orders, horovod, show)
    if ranks.is_first:
        text = machine.text(measured, calibration.comment(measured, ranks.size))
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"wrote {out}")


@contextmanager
def _status(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on standard error what goes on, if that is a terminal and this the first rank."""
    from rich.console import Console

    console = Console(stderr=True, quiet=not launched_as_first(horovod=False))
    with console.status(what) as status:
        yield lambda detail: status.update(f"{what}: {detail}")


if __name__ == "__main__":
    sys.exit(main())
