"""The options of a training: meaning, defaults and checks, all without TensorFlow.

A configuration has sections (data, subwords, model, ...), each with its options. No two sections
have an option of the same name, so that the command line does without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nmt.documented import section_of
from nmt.models.config import ModelConfig
from tfkfac import options
from tfkfac.errors import InputError
from tfkfac.options import (
    COUNT,
    FLAG,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    TEXT,
    WHOLE,
    Kind,
    one_of,
    option,
)

OBJECTIVES = (
    "mle", "scheduled-sampling", "differentiable-scheduled-sampling", "saml", "saml-hard",
)  # fmt: skip
SAMPLERS = ("softmax", "st-softmax", "gumbel-softmax", "st-gumbel-softmax")
OPTIMIZERS = (
    "adam", "adamw", "sgd", "kfac", "adadelta", "adafactor", "adagrad", "adamax", "ftrl", "lamb",
    "lion", "muon", "nadam", "rmsprop",
)  # fmt: skip
SCHEDULES = ("constant", "inverse-sqrt", "linear", "cosine", "plateau")
METRICS = ("bleu", "chrf", "loss")


def _setting(value: Any) -> float | int | bool | str | None:
    """A number, a flag, null or text, as it is written."""
    words = {"true": True, "false": False, "null": None, "none": None}
    text = "null" if value is None else str(value)
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, options.number):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _settings(value: Any) -> dict[str, Any]:
    if value == "none":
        return {}
    if isinstance(value, str):
        value = dict(item.split("=", 1) for item in value.split(",") if item)
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return {str(name).strip(): _setting(item) for name, item in value.items()}


SETTINGS = Kind(
    "settings such as {beta_2: 0.98}, on the command line beta_2=0.98,epsilon=1e-9",
    _settings,
    metavar="NAME=VALUE,...",
)


def _lines(value: Any) -> str:
    numbers = value if isinstance(value, list) else str(value).split(",")
    return ",".join(str(int(str(number))) for number in numbers)


LINES = Kind(
    "numbers of lines, from 1, such as 1,5,20",
    _lines,
    lambda value: all(int(number) > 0 for number in value.split(",")),
    metavar="N,...",
)
RATIO = Kind("a number, 1 or more", options.number, lambda value: value >= 1)


class _Section:
    """Checks each option when a section is made."""

    def __post_init__(self) -> None:
        for known in dataclasses.fields(self):  # type: ignore[arg-type]
            options.check(known, getattr(self, known.name))


@dataclass(frozen=True)
class Data(_Section):
    """The text, a sentence a line, plain or compressed with gzip."""

    source: str | None = option(TEXT, None, "text to translate from")
    target: str | None = option(TEXT, None, "its translation, line by line")
    validation_source: str | None = option(
        TEXT, None, "held-out text for validation; without it there is no best checkpoint"
    )
    validation_target: str | None = option(TEXT, None, "its translation")
    max_subwords: int = option(
        COUNT, 100, "longer sentences, in subwords, are left out of the training"
    )
    max_length_ratio: float | None = option(
        RATIO, None, "pairs are left out whose sides differ more in length, in subwords"
    )
    drop_bad: bool = option(
        FLAG,
        False,
        "leave out pairs with a blank side, control characters, invalid UTF-8 or lines far too "
        "long, rather than refuse the files",
    )


@dataclass(frozen=True)
class SubwordOptions(_Section):
    """The SentencePiece model that is trained on the text and kept with the model."""

    segmentation: str = option(one_of("unigram", "bpe"), "unigram", "how text is cut")
    vocabulary_size: int = option(
        COUNT, 8000, "subwords of both languages together, or of the source language"
    )
    target_vocabulary_size: int | None = option(
        COUNT, None, "subwords of a vocabulary of the target language's own; null for a joint one"
    )
    character_coverage: float = option(
        SHARE, 1.0, "share of the text's characters that get a piece; 0.9995 for Chinese, say"
    )
    byte_fallback: bool = option(
        FLAG, True, "spell other characters in bytes (256 of the subwords), instead of losing them"
    )


# Vocabulary sizes are known when the subwords are trained.
ModelOptions = section_of(
    ModelConfig, "ModelOptions", leave_out=("source_vocabulary", "target_vocabulary")
)


@dataclass(frozen=True)
class Loss(_Section):
    """What is minimised."""

    objective: str = option(
        one_of(*OBJECTIVES),
        "mle",
        "mle: maximum likelihood of the target, given the target so far (also a part of saml); "
        "scheduled-sampling: given a mixture of the target and samples; "
        "differentiable-scheduled-sampling: the same with gradients through the samples; "
        "saml: maximum likelihood, and SAML of samples (docs/saml.md); "
        "saml-hard: the same, each word compared in its place",
    )
    label_smoothing: float = option(
        FRACTION,
        0.1,
        "share of each target word's probability spread evenly over the vocabulary; not for SAML",
    )
    saml_weight: float = option(
        SHARE, 0.5, "saml: w of the loss (1 - w) MLE + w SAML; 0 is the same as mle"
    )
    saml_start: int = option(WHOLE, 0, "saml: updates of maximum likelihood alone before w is used")
    saml_warmup: int = option(WHOLE, 0, "saml: updates after those in which w rises along a line")
    saml_steps: str = option(
        one_of("reference", "batch"),
        "reference",
        "saml: steps of a sample that count: as many as its reference has, so that padding changes "
        "nothing, or, until it ends, all that the batch has",
    )
    sampler: str = option(
        one_of(*SAMPLERS),
        "st-gumbel-softmax",
        "what is fed back: mixtures of words, or single words (st-, straight-through), with or "
        "without Gumbel noise; noise of scale 1 samples from the model's distribution",
    )
    temperature: float = option(POSITIVE, 1.0, "of the samples' softmax")
    noise_scale: float = option(NOT_NEGATIVE, 1.0, "what the Gumbel noise is multiplied by")
    differentiable: bool = option(FLAG, True, "saml: whether gradients pass through the samples")
    sampling_schedule: str = option(
        one_of("inverse-sigmoid", "exponential", "linear"),
        "inverse-sigmoid",
        "scheduled sampling: how the probability of reading the reference falls with the number i: "
        "k / (k + exp(i / k)), k^i, or 1 - k i",
    )
    sampling_constant: float | None = option(
        POSITIVE,
        None,
        "scheduled sampling: k; null for 3000, 0.9999 or 0.00005, in the order of the schedules",
    )
    sampling_floor: float = option(SHARE, 0.0, "scheduled sampling: the least probability")
    sampling_interval: int = option(
        COUNT,
        1,
        "scheduled sampling: updates after which i grows by one; as many as validate_every: with "
        "every validation",
    )
    sampling_coins: str = option(
        one_of("example", "batch"),
        "example",
        "scheduled sampling: a coin for each word of each sentence, or each position of a batch",
    )

    @property
    def effective_sampling_constant(self) -> float:
        """The schedule's k."""
        defaults = {"inverse-sigmoid": 3000.0, "exponential": 0.9999, "linear": 0.00005}
        return self.sampling_constant or defaults[self.sampling_schedule]


@dataclass(frozen=True)
class Optimization(_Section):
    """How it is minimised."""

    optimizer: str = option(one_of(*OPTIMIZERS), "adam", "a Keras optimizer, or kfac (tfkfac.KFAC)")
    learning_rate: float = option(POSITIVE, 0.001, "highest learning rate, after the warm-up")
    weight_decay: float = option(
        NOT_NEGATIVE,
        0.0,
        "decoupled: each update also subtracts learning rate x weight decay x weight",
    )
    clip_norm: float | None = option(
        POSITIVE, None, "bound on the norm of the whole gradient, a mean over target words"
    )
    optimizer_options: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={
            "kind": SETTINGS,
            "help": "further arguments of the optimizer, under Keras's or KFAC's names",
            "group": "",
        },
    )
    schedule: str = option(
        one_of(*SCHEDULES),
        "constant",
        "learning rate after the warm-up: constant; falling with the square root of the updates "
        "(inverse-sqrt); to zero at the last update, along a line or a cosine; or multiplied by "
        "plateau_factor where validation no longer improves (plateau)",
    )
    warmup: int = option(WHOLE, 0, "updates in which the learning rate rises linearly from zero")
    plateau_patience: int = option(
        COUNT, 3, "plateau: validations without improvement before the learning rate falls"
    )
    plateau_factor: float = option(FRACTION, 0.5, "plateau: what it is multiplied by")


@dataclass(frozen=True)
class Training(_Section):
    """Batches and the training's length; it ends with the first limit that is reached."""

    batch_tokens: int = option(
        COUNT, 4096, "positions of a batch on each side, padding included, on each rank"
    )
    updates: int = option(COUNT, 100_000, "most updates, counted from the training's beginning")
    epochs: int | None = option(COUNT, None, "most passes over the data")
    minutes: float | None = option(
        POSITIVE, None, "most minutes of training, validation left out, over all resumptions"
    )
    seed: int = option(SEED, 1, "of initial weights, order, dropout and subword training")
    init_from: str | None = option(
        TEXT,
        None,
        "model directory whose best weights and subwords this training starts from; sizes must "
        "be the same",
    )


@dataclass(frozen=True)
class Validation(_Section):
    """Measurements on held-out text; sacreBLEU and chrF of detokenised translations."""

    validate_every: int = option(COUNT, 1000, "updates between validations")
    best_by: str = option(one_of(*METRICS), "bleu", "which measure makes a checkpoint the best")
    patience: int | None = option(
        COUNT, None, "stop after so many validations without improvement; null for never"
    )
    beam: int = option(COUNT, 5, "hypotheses kept in beam search")
    length_penalty: float = option(
        NOT_NEGATIVE, 1.0, "exponent of the length penalty, as for nmt-translate"
    )
    lowercase: bool = option(FLAG, False, "compare lower-cased text; the signature says so")
    alignment_lines: str | None = option(
        LINES,
        None,
        "lines of the validation text for which the soft alignment between the reference and a "
        "sample is drawn at each validation, as alignments/*.png in the model directory",
    )

    @property
    def chosen_lines(self) -> list[int]:
        """The lines to draw."""
        return [int(number) for number in (self.alignment_lines or "").split(",") if number]


@dataclass(frozen=True)
class Checkpoints(_Section):
    """What is kept while training, besides the best weights and what a resumption needs."""

    checkpoint_every: int = option(
        COUNT, 1000, "updates after which a killed training can resume; also after validations"
    )
    average: int = option(
        WHOLE, 5, "weights of so many validations are kept, and averaged at the end; 0 for none"
    )
    average_of: str = option(one_of("last", "best"), "last", "which validations' weights")


@dataclass(frozen=True)
class Execution(_Section):
    """How the machine is used."""

    precision: str = option(
        one_of("float32", "mixed_bfloat16", "mixed_float16"), "float32", "Keras's dtype policy"
    )
    jit: bool = option(FLAG, False, "compile with XLA, anew for each shape of batch; on one rank")
    deterministic: bool = option(
        FLAG, False, "only operations that repeat bit for bit on a GPU too, at some cost in speed"
    )
    threads: int | None = option(COUNT, None, "processor threads; null for all processors")


@dataclass(frozen=True)
class Output(_Section):
    """Where results go."""

    out: str | None = option(TEXT, None, "model directory to make")
    tensorboard: bool = option(FLAG, False, "also write TensorBoard's logs into it")


@dataclass(frozen=True)
class Config:
    """All options of one training; `nmt-train --help` tells what each means.

    Raises:
        InputError: if a value is out of range, or two options contradict each other; the message
            begins with an option's name.
    """

    data: Data = field(default_factory=Data)
    subwords: SubwordOptions = field(default_factory=SubwordOptions)
    model: Any = field(default_factory=ModelOptions)
    loss: Loss = field(default_factory=Loss)
    optimization: Optimization = field(default_factory=Optimization)
    training: Training = field(default_factory=Training)
    validation: Validation = field(default_factory=Validation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    execution: Execution = field(default_factory=Execution)
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        data, subwords, rates, loss = self.data, self.subwords, self.optimization, self.loss
        sizes = subwords.vocabulary_size, subwords.target_vocabulary_size
        self.model_config(sizes[0], sizes[1] or sizes[0])  # checks it
        if self.model.tied_embeddings == "all" and sizes[1] is not None:
            raise InputError(
                "tied_embeddings: all needs a joint vocabulary (target_vocabulary_size: null)"
            )
        for one, other in (
            ("source", "target"),
            ("validation_source", "validation_target"),
        ):
            if (getattr(data, one) is None) != (getattr(data, other) is None):
                given, missing = (one, other) if getattr(data, one) else (other, one)
                raise InputError(f"{given}: needs {missing}, its other side, too")
        if rates.schedule in ("linear", "cosine") and rates.warmup >= self.training.updates:
            raise InputError(
                f"warmup: {rates.warmup} leaves nothing of updates {self.training.updates}"
            )
        k, schedule = loss.effective_sampling_constant, loss.sampling_schedule
        if (k < 1) == (schedule == "inverse-sigmoid"):
            bound = "1 or more" if schedule == "inverse-sigmoid" else "below 1"
            raise InputError(f"sampling_constant: {k:g} is none for {schedule}; it must be {bound}")
        if self.positions is not None and data.max_subwords >= self.positions:
            raise InputError(
                f"max_subwords: {data.max_subwords} and the end do not fit max_positions "
                f"{self.positions}"
            )
        if data.max_subwords >= self.training.batch_tokens:
            raise InputError(
                f"batch_tokens: {self.training.batch_tokens} cannot hold a sentence of "
                f"max_subwords {data.max_subwords} and its end"
            )

    @property
    def positions(self) -> int | None:
        """Positions of a sentence that the model knows, END included; None for any number."""
        learned = self.model.architecture == "transformer" and self.model.positions == "learned"
        return self.model.max_positions if learned else None

    def model_config(self, source_vocabulary: int, target_vocabulary: int) -> ModelConfig:
        """The model's configuration for vocabularies of these sizes."""
        return ModelConfig(source_vocabulary, target_vocabulary, **dataclasses.asdict(self.model))

    def complete(self) -> Config:
        """The same, if nothing is missing that a training needs.

        Raises:
            InputError: otherwise.
        """
        for name in ("source", "target"):
            if getattr(self.data, name) is None:
                raise InputError(f"{name}: missing; give --{name} FILE, a sentence a line")
        if self.output.out is None:
            raise InputError("out: missing; give --out DIRECTORY, the model directory to make")
        if self.data.validation_source is None:
            needed = "needs validation_source and validation_target; without them"
            if self.validation.patience is not None:
                raise InputError(f"patience: {needed} give --patience null")
            if self.validation.alignment_lines is not None:
                raise InputError(f"alignment_lines: {needed} there is nothing to draw")
            if self.optimization.schedule == "plateau":
                raise InputError(f"schedule: plateau {needed} choose another one")
        return self

    def value(self, name: str) -> Any:
        """The value of an option, by its name alone."""
        return getattr(getattr(self, SECTION_OF[name]), name)


SECTIONS: dict[str, type] = {
    section.name: type(getattr(Config(), section.name)) for section in dataclasses.fields(Config)
}
OPTIONS: dict[str, dataclasses.Field] = {
    known.name: known for section in SECTIONS.values() for known in dataclasses.fields(section)
}
SECTION_OF = {
    known.name: name for name, section in SECTIONS.items() for known in dataclasses.fields(section)
}
