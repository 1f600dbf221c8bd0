"""KFAC as a Keras 3 optimizer: the thin face over `preconditioner`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkfac import plan, report
from tfkfac.communication import detect
from tfkfac.layer_state import LayerState
from tfkfac.placement import FACTOR_WISE, PLACEMENTS, make_grid
from tfkfac.planning import Discovery, Layout, Weight, discover
from tfkfac.preconditioner import Distribution, Layers, Preconditioner
from tfkfac.schedules import Schedulable, as_interval
from tfkfac.statistics import Gradient

_PLAN_KEY = "kfac_plan"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `KFAC` that stay what they are, under the same names."""

    factor_decay: float
    kl_clip: float | None
    method: str
    debias: bool
    max_factor_size: int | None
    oversized: str
    elementwise: str
    factor_dtype: str | None
    kl_clip_learning_rate: float | None
    placement: str
    gradient_worker_fraction: float
    balance: str
    refresh_above: int | None
    gradient_compression: str | None
    factor_compression: str | None
    communication: str


@keras.saving.register_keras_serializable(package="tfkfac")
class KFAC(keras.optimizers.Optimizer):
    """K-FAC: natural-gradient preconditioning in front of any Keras optimizer.

    Each weight's gradient ∇W is multiplied by the inverse of a Kronecker-factored approximation of
    the Fisher matrix, V = (A ⊗ G + λI)⁻¹ ∇W, and V goes to an ordinary optimizer, by default SGD
    with momentum. Layer inputs and output gradients are read off the graph of the training step, so
    that the model needs no change. The algorithm and the defaults are those of Pauloski et al.,
    "Convolutional Neural Network Training with Distributed K-FAC" (SC20).

    Dense layers, convolutions, embeddings and attention projections are preconditioned, with their
    biases; scale-and-shift parameters by the diagonal of the Fisher. What is not
    recognised gets the inner optimizer's plain update; `report()` names it with the reason.

    Under Horovod (after `hvd.init()`) gradients and factors are averaged over the ranks, and the
    decompositions are spread over them; see `tfkfac.placement` for who does what. The same script
    runs on one process and on many.

    Args:
        learning_rate: Of the default inner optimizer: a float or a `LearningRateSchedule`.
        momentum: Of the default inner optimizer, in [0, 1].
        damping: λ > 0, added to the product of eigenvalues. A float, or a schedule called with the
            number of updates.
        factor_interval: Updates between two factor updates (>= 1), a number or a schedule.
        eigen_interval: Updates between two decompositions (>= 1), a number or a schedule.
        factor_decay: α of the factors' running average, in [0, 1).
        kl_clip: κ of the KL clip ν = min(1, sqrt(κ / |lr² Σ V⊙∇W|)); None for no clip. With an
            inner optimizer that rescales its gradient (Adam) the clip has little effect.
        method: `"eigen"` (inverse-free) or `"inverse"` (explicit damped
            inverses, the paper's baseline).
        optimizer: Inner optimizer that receives V. Its learning rate, momentum, clipping (of V) and
            weight decay are its own; default `SGD(learning_rate, momentum)`.
        debias: Start the running averages at zero and divide by the sum of weights, as Adam does,
            rather than at the identity (SC20).
        max_factor_size: Largest order of a dense factor; a larger one becomes `oversized`. None for
            no bound.
        oversized: `"diagonal"` or `"block-diagonal"`.
        elementwise: `"diagonal"` (the exact diagonal of the empirical Fisher) or `"plain"` (SC20:
            no preconditioning) for scale-and-shift parameters and biases that stand alone.
        factor_dtype: Precision of factors and decompositions; None for float32, or float64 where a
            variable has it.
        kl_clip_learning_rate: lr in the formula of the KL clip; None for the current one (SC20).
            Where the clip binds it then undoes a schedule of the learning rate; with a number, such
            as the schedule's peak, the schedule acts on clipped steps too.
        placement: Under Horovod, who preconditions: `"factor-wise"` (every rank, from bases that
            owners decompose; SC20's K-FAC-opt), `"layer-wise"` (each layer's owner alone, who sends
            its directions every step; K-FAC-lw: least memory), or `"hybrid"` (some ranks; KAISA).
        gradient_worker_fraction: For `"hybrid"`, the share of ranks that precondition a layer, in
            (0, 1], rounded down to a divisor of the number of ranks.
        balance: What the owners share evenly: `"time"` of decompositions (n³), or `"memory"`.
        refresh_above: Order of a factor above which its eigenbasis is decomposed only once and from
            then on refreshed by matrix products that all ranks which hold it share (see
            `tfkfac.refresh`); None for never. With `method="eigen"` only.
        gradient_compression: `"float16"` to average gradients in half precision, or None.
        factor_compression: `"float16"` to average factors in half precision, or None.
        communication: `"auto"` (Horovod once `hvd.init()` was called), `"horovod"` (that, or an
            error), or `"none"` (this process alone).
        weight_decay: Decoupled: each update also subtracts `learning_rate * weight_decay * weight`.
        clipnorm, clipvalue, global_clipnorm: Clip the raw gradients, before preconditioning.
        use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
        gradient_accumulation_steps, name: As for every Keras optimizer. With accumulation the
            factors see every micro-batch, and all intervals and schedules count updates.

    Raises:
        ValueError: An argument is out of its range.
        RuntimeError: On use without a graph (`run_eagerly=True`).

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    >>> model.compile(optimizer=KFAC(learning_rate=0.1, damping=0.003), loss="mse")
    >>> history = model.fit(np.ones((4, 8)), np.ones((4, 2)), verbose=0)
    """

    def __init__(
        self,
        learning_rate: float | Callable[..., Any] = 0.1,
        momentum: float = 0.9,
        damping: Schedulable = 0.003,
        factor_interval: Schedulable = 10,
        eigen_interval: Schedulable = 100,
        factor_decay: float = 0.95,
        kl_clip: float | None = 0.001,
        method: str = "eigen",
        optimizer: keras.optimizers.Optimizer | None = None,
        *,
        debias: bool = False,
        max_factor_size: int | None = 8192,
        oversized: str = plan.DIAGONAL,
        elementwise: str = "diagonal",
        factor_dtype: str | None = None,
        kl_clip_learning_rate: float | None = None,
        placement: str = FACTOR_WISE,
        gradient_worker_fraction: float = 0.5,
        balance: str = "time",
        refresh_above: int | None = None,
        gradient_compression: str | None = None,
        factor_compression: str | None = None,
        communication: str = "auto",
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "kfac",
    ):
        _check_choice("method", method, ("eigen", "inverse"))
        _check_choice("oversized", oversized, (plan.DIAGONAL, plan.BLOCKS))
        _check_choice("elementwise", elementwise, ("diagonal", "plain"))
        if factor_dtype is not None:
            _check_choice("factor_dtype", factor_dtype, ("float32", "float64"))
        _check_range("factor_decay", factor_decay, 0 <= factor_decay < 1, "in [0, 1)")
        _check_range("kl_clip", kl_clip, kl_clip is None or kl_clip > 0, "positive, or None")
        if max_factor_size is not None:
            _check_range("max_factor_size", max_factor_size, max_factor_size >= 1, "at least 1")
        _check_choice("placement", placement, PLACEMENTS)
        _check_choice("balance", balance, ("time", "memory"))
        _check_choice("communication", communication, ("auto", "horovod", "none"))
        _check_choice("gradient_compression", gradient_compression, (None, "float16"))
        _check_choice("factor_compression", factor_compression, (None, "float16"))
        fraction = gradient_worker_fraction
        _check_range("gradient_worker_fraction", fraction, 0 < fraction <= 1, "in (0, 1]")
        if kl_clip_learning_rate is not None:
            rate = kl_clip_learning_rate
            _check_range("kl_clip_learning_rate", rate, rate > 0, "positive, or None")
        if refresh_above is not None:
            _check_range("refresh_above", refresh_above, refresh_above >= 1, "at least 1")
            if method != "eigen":
                raise ValueError('KFAC: refresh_above works with method="eigen" only')
        if not callable(damping):
            _check_range("damping", damping, damping > 0, "positive")
        for option, interval in (
            ("factor_interval", factor_interval),
            ("eigen_interval", eigen_interval),
        ):
            if not callable(interval):
                whole = int(interval) == interval and interval >= 1
                _check_range(option, interval, whole, "a whole number of at least 1")
        super().__init__(
            learning_rate=0.0,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        self.inner_optimizer = _inner_optimizer(optimizer, learning_rate, momentum)
        self._settings = Settings(
            factor_decay=factor_decay,
            kl_clip=kl_clip,
            method=method,
            debias=debias,
            max_factor_size=max_factor_size,
            oversized=oversized,
            elementwise=elementwise,
            factor_dtype=factor_dtype,
            kl_clip_learning_rate=kl_clip_learning_rate,
            placement=placement,
            gradient_worker_fraction=gradient_worker_fraction,
            balance=balance,
            refresh_above=refresh_above,
            gradient_compression=gradient_compression,
            factor_compression=factor_compression,
            communication=communication,
        )
        #: Values given to the constructor; schedules and callbacks compute from them.
        self.base_values = {
            "damping": damping,
            "factor_interval": factor_interval,
            "eigen_interval": eigen_interval,
        }
        self._scheduled: dict[str, Any] = {}
        for option, value in self.base_values.items():
            self._scheduled[option] = self._number_or_schedule(option, value)
        self._preconditioner: Preconditioner | None = None
        self._discovery = Discovery([], {})  # of the step that is being traced
        self._plain: dict[int, str] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_HAS_AGGREGATE_GRAD" in cls.__dict__:  # the class that Horovod makes of a KFAC
            raise TypeError(
                "KFAC averages gradients and factors over Horovod's ranks by itself: pass it to "
                "compile() as it is, without hvd.DistributedOptimizer"
            )

    def _number_or_schedule(self, option: str, value: Any) -> Any:
        if callable(value):
            return value
        dtype = "float32" if option == "damping" else "int64"
        return self.add_variable((), keras.initializers.Constant(value), dtype=dtype, name=option)

    # --- the inner optimizer shows through ---

    @property
    def learning_rate(self) -> keras.Variable | tf.Tensor:
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | Callable[..., Any]) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def variables(self) -> list[keras.Variable]:
        """Variables of this optimizer and of the inner one.

        Without the layers' factors and bases, which exist only after the first training step: see
        `state_variables`. They are saved and restored with the optimizer all the same.
        """
        return self._variables + self.inner_optimizer.variables

    @property
    def state_variables(self) -> dict[str, tf.Variable]:
        """Factors, bases and counters of all layers by name; empty before the first step."""
        return {} if self._preconditioner is None else self._preconditioner.state()

    @property
    def layers(self) -> list[LayerState]:
        """State of each preconditioned layer; empty before the first step."""
        return [] if self._preconditioner is None else list(self._preconditioner.layers.values())

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the inner optimizer's state for `variables`."""
        if self.built:
            return
        super().build(variables)
        self.inner_optimizer.build(variables)

    # --- schedules ---

    def _current(self, option: str) -> tf.Tensor:
        value = self._scheduled[option]
        if callable(value):
            return tf.convert_to_tensor(value(self.iterations))
        return tf.convert_to_tensor(value)

    def _assign(self, option: str, value: Any) -> None:
        if not isinstance(self._scheduled[option], keras.Variable):
            raise TypeError(
                f"KFAC: {option} follows the schedule given to the constructor and cannot be set"
            )
        self._scheduled[option].assign(value)

    @property
    def damping(self) -> tf.Tensor:
        """Current damping λ."""
        return self._current("damping")

    @damping.setter
    def damping(self, value: float) -> None:
        _check_range("damping", value, value > 0, "positive")
        self._assign("damping", value)

    @property
    def factor_interval(self) -> tf.Tensor:
        """Current number of updates between factor updates."""
        return as_interval(self._current("factor_interval"))

    @factor_interval.setter
    def factor_interval(self, value: float) -> None:
        self._assign("factor_interval", max(1, round(value)))

    @property
    def eigen_interval(self) -> tf.Tensor:
        """Current number of updates between decompositions."""
        return as_interval(self._current("eigen_interval"))

    @eigen_interval.setter
    def eigen_interval(self, value: float) -> None:
        self._assign("eigen_interval", max(1, round(value)))

    # --- the update ---

    @tf.autograph.experimental.do_not_convert
    def apply(
        self,
        grads: Sequence[Gradient],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """One step: statistics from the graph of `grads`, then the update.

        Raises:
            RuntimeError: `grads` are not symbolic, so that there is no graph to read.
        """
        grads = list(grads)
        if not grads:
            return
        given = list(trainable_variables) if trainable_variables is not None else None
        if not self.built and given is not None:
            self.build(given)
        variables = given if given is not None else self._trainable_variables
        self._check_variables_are_known(variables)
        self._require_graph(grads)
        self._discovery = self._discover(grads, variables)
        # Statistics come from the raw gradients; only then may they become dense, be averaged,
        # accumulated and clipped.
        if self._discovery.layers:
            self._update_factors(self._discovery)
        grads = [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        super().apply(grads, variables)

    def _require_graph(self, grads: Sequence[Gradient]) -> None:
        if tf.executing_eagerly() and any(g is not None for g in grads):
            raise RuntimeError(
                "KFAC reads its statistics from the graph of the training step, and there is none "
                "in eager execution. Compile without run_eagerly=True, or decorate your own "
                "training step with @tf.function."
            )
        strategy = tf.distribute.get_strategy()
        if strategy.num_replicas_in_sync > 1:
            raise RuntimeError(
                f"KFAC does not run on the {strategy.num_replicas_in_sync} replicas of a "
                "tf.distribute strategy: start one process per device with horovodrun instead."
            )

    def _discover(
        self, grads: Sequence[Gradient], variables: Sequence[keras.Variable]
    ) -> Discovery:
        weights = [
            Weight(_path(variable), tuple(variable.shape), self._index(variable))
            for variable in variables
        ]
        if self._preconditioner is None:
            self._preconditioner = self._create_preconditioner(variables)
        settings = self._settings
        layout = Layout(settings.max_factor_size, settings.oversized, settings.elementwise)
        discovery = discover(grads, weights, layout)
        plans = [layer for layer, _ in discovery.layers]
        self._preconditioner.prepare(plans, lambda: self._description(variables))
        self._preconditioner.adopt(plans)
        for index, reason in discovery.plain.items():
            if index not in self._preconditioner.layers:
                self._plain[index] = reason
        if not discovery.layers:
            reasons = "; ".join(sorted(set(discovery.plain.values())))
            warnings.warn(
                "KFAC found nothing to precondition in this training step: every variable gets the "
                f"plain update of {self.inner_optimizer.name} ({reasons}).",
                stacklevel=2,
            )
        return discovery

    def _description(self, variables: Sequence[keras.Variable]) -> dict[str, str]:
        """What all ranks must have in common besides the layers."""
        description = {f"variable {i}": str(tuple(v.shape)) for i, v in enumerate(variables)}
        for option, value in dataclasses.asdict(self._settings).items():
            description[option] = repr(value)
        for option in ("factor_interval", "eigen_interval"):
            value = self._scheduled[option]
            described = self.base_values[option] if callable(value) else _number(value)
            description[option] = str(described)
        description["gradient_accumulation_steps"] = str(self.gradient_accumulation_steps)
        description["updates"] = str(_number(self.iterations))
        return description

    def _create_preconditioner(self, variables: Sequence[keras.Variable]) -> Preconditioner:
        settings = self._settings
        dtype = settings.factor_dtype
        if dtype is None:
            wide = any(tf.as_dtype(v.dtype) == tf.float64 for v in variables)
            dtype = "float64" if wide else "float32"
        communication = detect(settings.communication)
        grid = make_grid(settings.placement, communication.size, settings.gradient_worker_fraction)
        return Preconditioner(
            settings.method,
            settings.factor_decay,
            settings.debias,
            tf.as_dtype(dtype),
            communication,
            Distribution(
                grid,
                settings.balance,
                refresh_above=settings.refresh_above,
                half_factors=settings.factor_compression is not None,
            ),
        )

    def _existing_preconditioner(self) -> Preconditioner:
        if self._preconditioner is None:
            raise RuntimeError("KFAC: nothing is known before the first training step")
        return self._preconditioner

    def _index(self, variable: keras.Variable) -> int:
        return self._get_variable_index(variable)

    def _update_factors(self, discovery: Discovery) -> None:
        steps = self.gradient_accumulation_steps or 1
        micro_step = tf.convert_to_tensor(self._iterations) % steps
        preconditioner = self._existing_preconditioner()
        decay = preconditioner.factor_decay
        dtype = preconditioner.dtype
        first = tf.equal(micro_step, 0)
        one, kept = tf.ones([], dtype), tf.constant(decay, dtype)
        share = tf.constant((1.0 - decay) / steps, dtype)
        held = tf.where(first, one, kept + tf.cast(micro_step, dtype) * share)
        _when(
            self._is_due(self.factor_interval),
            lambda: preconditioner.update_factors(
                _with_loss_scale(discovery.layers, self.loss_scale_factor),
                tf.where(first, kept, one),
                share,
                held,
            ),
        )

    def _is_due(self, interval: tf.Tensor) -> tf.Tensor:
        updates = tf.cast(tf.convert_to_tensor(self.iterations), tf.int64)
        return tf.equal(updates % interval, 0)

    def _clip_gradients(self, grads: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        # Called once per update with the accumulated gradients: the place where the ranks' means
        # are due, before they are clipped.
        ranks = self._existing_preconditioner().communication
        half = self._settings.gradient_compression is not None
        return super()._clip_gradients(ranks.average(grads, "gradients", half))

    def _backend_update_step(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[keras.Variable],
        learning_rate: tf.Tensor,
    ) -> None:
        discovery, preconditioner = self._discovery, self._existing_preconditioner()
        grads = list(grads)
        if discovery.layers:
            damping = self.damping
            _when(
                self._is_due(self.eigen_interval),
                lambda: preconditioner.decompose(discovery.layers, damping),
            )
            indices = [self._index(variable) for variable in trainable_variables]
            directions = preconditioner.precondition(
                discovery.layers,
                dict(zip(indices, grads, strict=True)),
                damping,
                tf.convert_to_tensor(self._settings.kl_clip_learning_rate or learning_rate),
                self._settings.kl_clip,
            )
            grads = [
                directions.get(index, grad) for index, grad in zip(indices, grads, strict=True)
            ]
        self.inner_optimizer.apply(grads, trainable_variables)

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Not used: the inner optimizer updates the variables."""
        raise NotImplementedError

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Writes averaged weights (`use_ema`) of this or of the inner optimizer."""
        super().finalize_variable_values(var_list)
        self.inner_optimizer.finalize_variable_values(var_list)

    # --- report ---

    def report(self) -> report.Report:
        """What K-FAC does with each variable, and how it fares; `print` it.

        Raises:
            RuntimeError: Before the first training step, when nothing is known.
        """
        if self._preconditioner is None:
            raise RuntimeError("KFAC: report() needs one training step first")
        names = {self._index(v): _path(v) for v in self._trainable_variables}
        shapes = {self._index(v): tuple(v.shape) for v in self._trainable_variables}
        values = {
            "updates": int(np.asarray(self.iterations)),
            "learning rate": float(np.asarray(self.learning_rate)),
            "damping": float(self.damping),
            "factor interval": int(self.factor_interval),
            "eigen interval": int(self.eigen_interval),
        }
        return report.make(self._preconditioner, names, shapes, self._plain, values)

    # --- saving ---

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments; the inner optimizer is always spelled out."""
        config = super().get_config()
        config.pop("learning_rate", None)
        config.update(dataclasses.asdict(self._settings))
        for option, value in self.base_values.items():
            config[option] = keras.saving.serialize_keras_object(value)
        config["optimizer"] = keras.saving.serialize_keras_object(self.inner_optimizer)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> KFAC:
        """The optimizer that `get_config` described."""
        config = dict(config)
        for option in ("optimizer", "damping", "factor_interval", "eigen_interval"):
            if isinstance(config.get(option), dict):
                config[option] = keras.saving.deserialize_keras_object(
                    config[option], custom_objects=custom_objects
                )
        return cls(**config)

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        """Writes this optimizer's variables, the layer plans and the layers' state.

        Nothing before `build`: there is no state to speak of.
        """
        if not self.built:
            return
        for i, variable in enumerate(self.variables):
            store[str(i)] = variable.numpy()
        if self._preconditioner is None:
            return
        if not self._preconditioner.is_complete():
            raise RuntimeError(
                f"KFAC: rank {self._preconditioner.communication.rank} holds no bases of layers "
                f"that other ranks precondition (placement={self._settings.placement!r}): save on "
                "rank 0, which keeps what a checkpoint needs"
            )
        plans = [state.plan for state in self.layers]
        store[_PLAN_KEY] = np.frombuffer(plan.to_json(plans).encode(), np.uint8)
        for name, variable in self.state_variables.items():
            store[f"kfac_{name}"] = variable.numpy()

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        """Restores what `save_own_variables` wrote, before or after the first training step.

        Where this or the saved optimizer was not built yet, it warns and stays as it is, as every
        Keras optimizer does.

        Raises:
            ValueError: The stored state does not fit this optimizer and model.
        """
        stored = set(store.keys())
        if not self.built or not stored:
            cause = "it has" if not self.built else "the saved one had"
            warnings.warn(
                f"Skipping variable loading for optimizer '{self.name}': {cause} not been built. "
                "Call optimizer.build(model.trainable_variables) before saving and loading.",
                stacklevel=2,
            )
            return
        self._check_own_variables(
            {key: tuple(store[key].shape) for key in stored if not key.startswith("kfac_")}
        )
        plans = []
        if _PLAN_KEY in stored:
            plans = plan.from_json(bytes(np.asarray(store[_PLAN_KEY])).decode())
        if plans or self._preconditioner is not None:
            # A step that was traced before goes on with the same variables.
            if self._preconditioner is None:
                self._preconditioner = self._create_preconditioner(self._trainable_variables)
            names = {key for key in stored if key.startswith("kfac_")} - {_PLAN_KEY}
            self._preconditioner.restore(
                plans, {key.removeprefix("kfac_"): np.asarray(store[key]) for key in names}
            )
        for i, variable in enumerate(self.variables):
            variable.assign(store[str(i)])

    def _check_own_variables(self, stored: Mapping[str, tuple[int, ...]]) -> None:
        expected = {str(i): variable for i, variable in enumerate(self.variables)}
        cause = "it was saved with another inner optimizer or model."
        if len(stored) != len(expected):
            raise ValueError(
                f"KFAC: the checkpoint holds {len(stored)} optimizer variables and this optimizer "
                f"has {len(expected)}: {cause}"
            )
        for key, variable in expected.items():
            if stored.get(key) != tuple(variable.shape):
                raise ValueError(
                    f"KFAC: the checkpoint holds shape {stored.get(key)} for {variable.path} of "
                    f"shape {tuple(variable.shape)}: {cause}"
                )


def _inner_optimizer(
    optimizer: keras.optimizers.Optimizer | None,
    learning_rate: float | Callable[..., Any],
    momentum: float,
) -> keras.optimizers.Optimizer:
    if optimizer is None:
        return keras.optimizers.SGD(learning_rate=learning_rate, momentum=momentum)
    optimizer = keras.optimizers.get(optimizer)
    if isinstance(optimizer, (KFAC, keras.optimizers.LossScaleOptimizer)):
        raise ValueError(
            f"KFAC: optimizer={type(optimizer).__name__} cannot be the inner optimizer; "
            "wrap it around KFAC instead, or pass what it wraps"
        )
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            "KFAC: give gradient_accumulation_steps to KFAC, not to the inner optimizer, so that "
            "the factors see every micro-batch"
        )
    if learning_rate != 0.1 or momentum != 0.9:
        raise ValueError(
            "KFAC: learning_rate and momentum belong to the default inner optimizer; set them on "
            f"the {type(optimizer).__name__} that you pass"
        )
    return optimizer


def _with_loss_scale(layers: Layers, loss_scale_factor: float | None) -> Layers:
    """`loss_scale_factor` divides gradients only later, in `apply` of the base class."""
    if loss_scale_factor is not None:
        for _, uses in layers:
            for use in uses:
                use.multipliers = (*use.multipliers, lambda: tf.constant(1 / loss_scale_factor))
    return layers


def _when(predicate: tf.Tensor, action: Callable[[], None]) -> None:
    def act() -> tf.Tensor:
        action()
        return tf.constant(True)

    tf.cond(predicate, act, lambda: tf.constant(False))


def _number(variable: keras.Variable) -> int:
    """A variable's current value, also while a training step is being traced."""
    with tf.init_scope():
        return int(tf.convert_to_tensor(variable.value).numpy())


def _path(variable: keras.Variable) -> str:
    return getattr(variable, "path", None) or variable.name.removesuffix(":0")


def _check_choice(option: str, value: Any, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"KFAC: {option} must be one of {', '.join(map(repr, choices))}; got {value!r}"
        )


def _check_range(option: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(f"KFAC: {option} must be {expected}; got {value!r}")
