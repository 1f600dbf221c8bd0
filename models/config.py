"""The options of a training: meaning, defaults and checks, all without TensorFlow.

A configuration is a flat YAML mapping of the fields of `TrainingConfig`; every field is also an
option of the command line, with hyphens for its underscores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tfkfac import options
from tfkfac.errors import InputError, unknown
from tfkfac.options import (
    COUNT,
    FLAG,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    TEXT,
    Kind,
    one_of,
)

PRESETS = Path(__file__).parent / "configs"

DATASETS = ("digits", "cifar10", "imagenet")
CIFAR_MODELS = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
IMAGENET_MODELS = ("resnet50", "resnet101", "resnet152")
OPTIMIZERS = ("sgd", "adamw", "muon", "kfac")

DEFAULT_MODELS = {"digits": "resnet8", "cifar10": "resnet20", "imagenet": "resnet50"}
DEFAULT_LEARNING_RATES = {"sgd": 0.1, "kfac": 0.1, "adamw": 0.001, "muon": 0.01}
# What `text` adds to a configuration and `read` skips.
VERSIONS = "versions"


def _epochs(value: Any) -> tuple[float, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(options.number(item) for item in items if item != "")


def _increasing(values: tuple[float, ...]) -> bool:
    return all(later > earlier for earlier, later in zip((0.0, *values), values, strict=False))


EPOCHS = Kind(
    "increasing epochs above 0 such as 35,75,90", _epochs, _increasing, metavar="E1,E2,..."
)


def _option(group: str, kind: Kind, default: Any, help: str) -> Any:
    return options.option(kind, default, help, group)


@dataclass(frozen=True)
class TrainingConfig:
    """All options of one training; `models-train --help` tells what each means.

    Raises:
        InputError: if a value is out of range, or two options contradict each other.
    """

    dataset: str = _option("data", one_of(*DATASETS), "digits", "what to train on")
    data: str | None = _option(
        "data",
        TEXT,
        None,
        "cifar10: an .npz file (without: Keras downloads it); imagenet: a directory of JPEG "
        "folders or TFRecord files; digits comes with scikit-learn",
    )
    model: str | None = _option(
        "data",
        one_of(*CIFAR_MODELS, *IMAGENET_MODELS),
        None,
        "network; without: resnet8 for digits, resnet20 for cifar10, resnet50 for imagenet",
    )
    zero_gamma: bool = _option(
        "data", FLAG, False, "start residual blocks as the identity (last batch norm's scale is 0)"
    )
    stride_in_3x3: bool = _option(
        "data", FLAG, False, "resnet50/101/152: stride in the 3x3 convolution ('v1.5')"
    )

    optimizer: str = _option("optimizer", one_of(*OPTIMIZERS), "sgd", "what to train with")
    learning_rate: float | None = _option(
        "optimizer",
        POSITIVE,
        None,
        "after the warm-up, for one rank; without: 0.1 for sgd and kfac, 0.001 for adamw, 0.01 "
        "for muon",
    )
    scale_learning_rate: bool = _option(
        "optimizer",
        FLAG,
        True,
        "multiply the learning rate by the number of ranks, as the batch is (linear scaling rule)",
    )
    momentum: float = _option("optimizer", FRACTION, 0.9, "sgd and kfac: momentum, not Nesterov's")
    weight_decay: float = _option(
        "optimizer",
        NOT_NEGATIVE,
        0.0,
        "decoupled for every optimizer: each step also subtracts learning rate x weight decay x "
        "weight. A paper's L2 term inside SGD with momentum m corresponds to its value / (1 - m)",
    )

    schedule: str = _option(
        "schedule",
        one_of("step", "linear", "cosine", "constant"),
        "linear",
        "learning rate after the warm-up: dropping at decay_epochs, falling to zero at the last "
        "epoch along a line or a cosine, or constant",
    )
    warmup_epochs: float = _option(
        "schedule", NOT_NEGATIVE, 0.0, "epochs in which the learning rate rises linearly"
    )
    warmup_start: float | None = _option(
        "schedule",
        SHARE,
        None,
        "fraction of the learning rate from which it rises; without: 0 on one rank, 1/ranks on "
        "several",
    )
    decay_epochs: tuple[float, ...] = _option(
        "schedule", EPOCHS, (), "step: epochs at which the learning rate drops"
    )
    decay_factor: float = _option(
        "schedule", POSITIVE, 0.1, "step: what it is multiplied by at each of them"
    )

    damping: float = _option("kfac", POSITIVE, 0.003, "damping of the curvature")
    damping_decay_epochs: tuple[float, ...] = _option(
        "kfac", EPOCHS, (), "epochs at which the damping is multiplied by damping_decay_factor"
    )
    damping_decay_factor: float = _option("kfac", POSITIVE, 0.5, "see damping_decay_epochs")
    factor_interval: int = _option("kfac", COUNT, 10, "steps between updates of the factors")
    eigen_interval: int = _option("kfac", COUNT, 100, "steps between their decompositions")
    interval_change_epochs: tuple[float, ...] = _option(
        "kfac", EPOCHS, (), "epochs at which both intervals change by interval_change_factor"
    )
    interval_change_factor: float = _option(
        "kfac", POSITIVE, 2.0, "see interval_change_epochs; intervals stay at least 1"
    )
    factor_decay: float = _option(
        "kfac", FRACTION, 0.95, "weight of the past in the factors' running average"
    )
    kl_clip: float = _option("kfac", POSITIVE, 0.001, "bound on the size of a step")
    kl_clip_learning_rate: float | None = _option(
        "kfac",
        POSITIVE,
        None,
        "learning rate in the formula of the clip; without: the current one as in the paper, "
        "where the clip undoes a decay of the learning rate for as long as it binds",
    )
    method: str = _option(
        "kfac", one_of("eigen", "inverse"), "eigen", "eigenbases, or explicit inverses"
    )
    elementwise: str = _option(
        "kfac",
        one_of("diagonal", "plain"),
        "diagonal",
        "batch norm's scale and offset: divided by the Fisher's diagonal, or left to SGD as in "
        "the paper",
    )

    debias: bool = _option(
        "kfac",
        FLAG,
        False,
        "factors' averages start at zero and are divided by their weights, rather than at the "
        "identity as in the paper; for short trainings",
    )
    weight_sharing: str = _option(
        "kfac",
        one_of("expand", "reduce"),
        "expand",
        "a convolution's positions: unrelated as in the paper, or alike, for networks that average "
        "over them",
    )

    placement: str = _option(
        "kfac",
        one_of("factor-wise", "layer-wise", "hybrid"),
        "factor-wise",
        "on several ranks, who preconditions a layer: every rank, one, or some of them",
    )
    gradient_worker_fraction: float = _option(
        "kfac", POSITIVE, 0.5, "hybrid: share of the ranks that precondition a layer"
    )
    refresh_above: int | None = _option(
        "kfac",
        COUNT,
        None,
        "order of a factor above which its basis is refreshed by matrix products that the ranks "
        "share, rather than decomposed anew; without: never",
    )
    half_precision_exchange: bool = _option(
        "kfac", FLAG, False, "send gradients and factors between ranks as float16"
    )

    epochs: int = _option("training", COUNT, 10, "epochs, counted from the training's beginning")
    batch_size: int = _option("training", COUNT, 128, "examples in a batch, on each rank")
    label_smoothing: float = _option(
        "training",
        FRACTION,
        0.0,
        "share of each target spread evenly over the classes; reported losses include it",
    )
    seed: int = _option("training", SEED, 1, "of initial weights, order and augmentation")
    steps_per_epoch: int | None = _option(
        "training", COUNT, None, "for trials: end an epoch after so many steps; without: all data"
    )
    time_limit: int | None = _option(
        "training",
        COUNT,
        None,
        "end after the epoch in which so many seconds have passed; needs tensorflow-addons",
    )

    precision: str = _option(
        "execution",
        one_of("float32", "mixed_float16", "mixed_bfloat16"),
        "float32",
        "Keras's dtype policy",
    )
    jit: bool = _option("execution", FLAG, False, "compile with XLA; on one rank only")
    steps_per_execution: int = _option(
        "execution", COUNT, 1, "steps in one call of the runtime; divides the steps of an epoch"
    )
    deterministic: bool = _option(
        "execution", FLAG, False, "only operations that repeat bit for bit, at some cost in speed"
    )

    out: str | None = _option(
        "output", TEXT, None, "run directory; without: runs/DATASET-MODEL-OPTIMIZER"
    )
    progress: str = _option(
        "output",
        one_of("keras", "tqdm"),
        "keras",
        "bar on a terminal; tqdm draws it anywhere and needs tensorflow-addons",
    )
    tensorboard: bool = _option(
        "output", FLAG, False, "write TensorBoard's logs into the run directory"
    )

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            options.check(option, getattr(self, name))
        if self.decay_epochs and self.schedule != "step":
            raise InputError(f"decay_epochs needs schedule step, but schedule is {self.schedule}")
        if self.schedule in ("linear", "cosine") and self.warmup_epochs >= self.epochs:
            raise InputError(
                f"warmup_epochs {self.warmup_epochs:g} leaves nothing of epochs {self.epochs}"
            )
        if self.stride_in_3x3 and self.model_name not in IMAGENET_MODELS:
            raise InputError(
                f"stride_in_3x3 is for {', '.join(IMAGENET_MODELS)}, not for {self.model_name}"
            )
        if self.dataset == "digits" and self.data is not None:
            raise InputError("data: dataset digits comes with scikit-learn and takes no file")

    @property
    def model_name(self) -> str:
        return self.model or DEFAULT_MODELS[self.dataset]

    def resolved(self) -> TrainingConfig:
        """The same, with the defaults filled in that depend on other options."""
        return dataclasses.replace(
            self,
            model=self.model_name,
            learning_rate=self.learning_rate or DEFAULT_LEARNING_RATES[self.optimizer],
            out=self.out or f"runs/{self.dataset}-{self.model_name}-{self.optimizer}",
        )


OPTIONS = {option.name: option for option in dataclasses.fields(TrainingConfig)}


def convert(name: str, value: Any, where: str) -> Any:
    """The value of option `name`, a key of `OPTIONS`; see `tfkfac.options.convert`."""
    return options.convert(OPTIONS[name], value, where)


def preset_names() -> list[str]:
    """The configurations that come with the package."""
    return options.preset_names(PRESETS)


def find(name: str) -> Path:
    """The file of a configuration: a path, or the name of one that comes with the package.

    Raises:
        InputError: if there is neither.
    """
    return options.find(name, PRESETS)


def read(path: Path) -> dict[str, Any]:
    """The options that a YAML file sets, converted.

    Raises:
        InputError: naming file and line, if the file is not a mapping, sets an option twice or
            one that does not exist, or gives one a value it does not take.
    """
    values: dict[str, Any] = {}
    for entry in options.read_entries(path, "epochs: 10"):
        if entry.key == VERSIONS:
            continue
        if entry.key not in OPTIONS:
            raise unknown("option", entry.key, OPTIONS, entry.where)
        values[entry.key] = convert(entry.key, entry.value, f"{entry.where}: {entry.key}")
    return values


def text(config: TrainingConfig, versions: Mapping[str, str]) -> str:
    """The configuration as YAML that `read` accepts, followed by the versions it ran with."""
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }
    return yaml.safe_dump({**values, VERSIONS: dict(versions)}, sort_keys=False)
