"""What one training step of a Keras model costs a rank, read off its symbolic trace.

The step is traced with the same `planning.discover` that KFAC runs, but never executed: layer
kinds, factor orders and biases are what KFAC would find. The loss is the mean square of all
outputs, whose gradient reaches the same weights as any other loss; regularisers and `add_loss` are
included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfkfac.base_optimizer import variable_path
from tfkfac.errors import InputError, unknown
from tfkfac.factors import second_moments
from tfkfac.layer_costs import Layer, Workload
from tfkfac.plan import LayerPlan
from tfkfac.planning import Layout, Weight, discover
from tfkfac.uses import ConvolutionUse, DenseUse, EmbeddingUse, Use

DEFAULT_LAYOUT = Layout(max_factor_size=8192, oversized="diagonal", elementwise="diagonal")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and what it is called with.

    Attributes:
        name: For tables.
        model: Built, or buildable by a call with `inputs`.
        inputs: Nested shapes and dtypes of one batch, None for the model's own.
    """

    name: str
    model: keras.Model
    inputs: Any = None


def load(source: str, built_in: Sequence[str] = ()) -> Subject:
    """The model that a command line names.

    Args:
        source: A built-in name, a saved `.keras` file, or `module:function`, where the function
            takes nothing and returns a model, or a model and an example batch of its inputs.
        built_in: Names of functions of `models.resnet`.

    Raises:
        InputError: There is no such model, or it cannot be loaded.
    """
    if source in built_in:
        resnet = importlib.import_module("models.resnet")
        return Subject(source, getattr(resnet, source)())
    if source.endswith(".keras"):
        return Subject(Path(source).stem, _load_file(source))
    if ":" in source:
        return _call(source)
    error = unknown("model", source, built_in, "model")
    raise InputError(f"{error}; a saved .keras file and module:function are taken, too")


def _load_file(path: str) -> keras.Model:
    if not Path(path).is_file():
        raise InputError(f"model: no file {path}")
    with contextlib.suppress(ImportError):
        importlib.import_module("models.resnet")  # registers the layers of its networks
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged archive leads to
        # Keras buries a missing class under a page on deserialization.
        lines = [line for line in str(error).splitlines() if "Could not locate class" in line]
        if not lines:
            raise InputError(f"{path}: Keras cannot load it: {_first_line(error)}") from error
        raise InputError(
            f"{path}: {lines[0].removeprefix('Exception encountered: ')} "
            "Name a module:function instead that defines it and loads or makes the model."
        ) from error


def _call(source: str) -> Subject:
    module_name, _, function_name = source.partition(":")
    sys.path.insert(0, "")  # as `python -m` has it
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(f"model {source}: {_first_line(error)}") from error
    finally:
        sys.path.remove("")
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value)]
        raise unknown("function", function_name, names, f"model {source}")
    try:
        result = function()
    except Exception as error:
        raise InputError(f"model {source}: it raised {_first_line(error)}") from error
    model, inputs = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"model {source}: expected a Keras model, or a model and example inputs, "
            f"not {type(model).__name__}"
        )
    return Subject(function_name, model, inputs)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def trace(
    subject: Subject,
    batch_size: int,
    length: int | None = None,
    layout: Layout = DEFAULT_LAYOUT,
    count_factors: bool = True,
) -> Workload:
    """The costs of one training step on one rank.

    Args:
        subject: From `load`.
        batch_size: Examples of one rank.
        length: What stands for dimensions that the model leaves open, such as tokens in a sentence.
        layout: KFAC's options on the structure of factors.
        count_factors: Trace their computation as well, as this host would do it. It takes longer.

    Raises:
        InputError: The inputs are unknown, or nothing can be trained.
    """
    model = subject.model
    specs = _input_specs(subject, batch_size, length)
    try:
        if not model.built:
            model(tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs))
        if not model.trainable_variables:
            raise InputError(f"{subject.name}: it has no trainable variables")
        step = _Step(model, layout, count_factors)
        with warnings.catch_warnings():
            # A model with a dictionary of inputs takes their list, too, but says so each time.
            warnings.filterwarnings("ignore", "The structure of `inputs`", UserWarning)
            tf.function(step, autograph=False).get_concrete_function(specs)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{subject.name}: its training step: {_first_line(error)}") from error
    return Workload(
        layers=tuple(_layer(plan, uses, batch_size) for plan, uses in step.layers),
        parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
        training_flops=step.training_flops,
        factor_flops=step.factor_flops,
    )


class _Step:
    """A training step with a factor update, and what its trace showed."""

    def __init__(self, model: keras.Model, layout: Layout, count_factors: bool):
        self.model, self.layout, self.count_factors = model, layout, count_factors
        self.layers: list[tuple[LayerPlan, tuple[Use, ...]]] = []
        self.training_flops = 0.0
        self.factor_flops: float | None = None

    def __call__(self, inputs: Any) -> list[tf.Tensor]:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(self.model(inputs, training=True))
            floats = [tf.cast(output, tf.float32) for output in outputs if output.dtype.is_floating]
            losses = [tf.cast(loss, tf.float32) for loss in self.model.losses]
            loss = tf.add_n([*(tf.reduce_mean(tf.square(output)) for output in floats), *losses])
        gradients = tape.gradient(loss, variables)
        weights = [
            Weight(variable_path(v), tuple(v.shape), index) for index, v in enumerate(variables)
        ]
        graph = tf.compat.v1.get_default_graph()
        self.training_flops = graph_flops(graph)
        self.layers = discover(gradients, weights, self.layout).layers
        if not self.count_factors:
            return []
        moments = [second_moments(plan, uses, tf.float32) for plan, uses in self.layers]
        self.factor_flops = graph_flops(graph) - self.training_flops
        return [m for pairs in moments for pair in pairs for m in pair if m is not None]


def graph_flops(graph: tf.Graph) -> float:
    """FLOPs of a graph by TensorFlow's count; what has no static shape counts as nothing."""
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it calls its own deprecated functions
    try:
        profile = tf.compat.v1.profiler.profile(graph, options={**options, "output": "none"})
    finally:
        logger.setLevel(level)
    return float(profile.total_float_ops)


def _input_specs(subject: Subject, batch_size: int, length: int | None) -> Any:
    """Shapes and dtypes of one batch, all dimensions known."""
    inputs = subject.inputs
    if inputs is None:
        inputs = getattr(subject.model, "inputs", None)
        if isinstance(inputs, list) and len(inputs) == 1:
            inputs = inputs[0]
    if inputs is None:
        raise InputError(
            f"{subject.name}: the model does not say what its inputs are; "
            "name a module:function that returns the model and an example batch"
        )

    def spec(value: Any) -> tf.TensorSpec:
        shape, dtype = tuple(value.shape), getattr(value, "dtype", "float32")
        dimensions = [batch_size, *(length if d is None else d for d in shape[1:])]
        if None in dimensions:
            raise InputError(
                f"{subject.name}: input {getattr(value, 'name', '')} of shape {shape} leaves a "
                "dimension open; set it with --length"
            )
        return tf.TensorSpec(dimensions, tf.as_dtype(dtype))

    return tf.nest.map_structure(spec, inputs)


def _layer(plan: LayerPlan, uses: Sequence[Use], batch_size: int) -> Layer:
    positions = sum(_positions(plan, use, batch_size) for use in uses)
    return Layer(plan.name, plan.rows, plan.columns, plan.groups, positions)


def _positions(plan: LayerPlan, use: Use, batch_size: int) -> int:
    """`use.positions`, from static shapes."""
    if isinstance(use, DenseUse):
        operand = use.input_operand()
        count = _elements(plan, operand.tensor) // operand.size
    elif isinstance(use, ConvolutionUse):
        axis = 1 if use.geometry.channels_first else -1
        count = _elements(plan, use.filters_tensor) // use.filters_tensor.shape[axis]
    elif isinstance(use, EmbeddingUse):
        count = _elements(plan, use.indices_tensor)
    else:
        count = batch_size
    return count


def _elements(plan: LayerPlan, tensor: tf.Tensor) -> int:
    count = tensor.shape.num_elements()
    if count is None:
        raise InputError(
            f"{plan.name}: its number of positions depends on the data (shape {tensor.shape})"
        )
    return count
