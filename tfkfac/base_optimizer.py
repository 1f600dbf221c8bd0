"""What the KFAC of every Keras version has: arguments, schedules, report and saving."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfkfac import plan, report
from tfkfac.engine import Engine, number
from tfkfac.factors import EXPAND
from tfkfac.gradient_terms import Gradient
from tfkfac.layer_state import LayerState
from tfkfac.placement import FACTOR_WISE
from tfkfac.planning import Weight
from tfkfac.schedules import Schedulable
from tfkfac.settings import Settings, check_range, check_scheduled

_PLAN_KEY = "kfac_plan"

Self = TypeVar("Self", bound="BaseKFAC")


class BaseKFAC:
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
        weight_sharing: How the positions of a convolution, or of a dense layer on sequences, are
            taken: `"expand"` (gradients at different positions are unrelated: KFC; right where each
            position has its own loss, as in segmentation or translation) or `"reduce"` (they are
            alike: right where the network averages over positions, as image classifiers do, and
            cheaper), see `tfkfac.factors`.
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
        TypeError: The first argument is an optimizer.
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
        optimizer: Any = None,
        *,
        debias: bool = False,
        weight_sharing: str = EXPAND,
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
        if isinstance(learning_rate, keras.optimizers.Optimizer):
            given = type(learning_rate).__name__
            raise TypeError(
                "KFAC: the first argument is the learning rate; pass the optimizer that takes the "
                f"preconditioned gradient by name: KFAC(optimizer={given}(...))"
            )
        settings = Settings(
            factor_decay=factor_decay,
            kl_clip=kl_clip,
            method=method,
            debias=debias,
            weight_sharing=weight_sharing,
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
        base_values = {
            "damping": damping,
            "factor_interval": factor_interval,
            "eigen_interval": eigen_interval,
        }
        check_scheduled(base_values)
        self._start(
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
        if optimizer is None:
            inner = keras.optimizers.SGD(learning_rate=learning_rate, momentum=momentum)
        else:
            inner = keras.optimizers.get(optimizer)
            self._check_inner_optimizer(inner)
            if learning_rate != 0.1 or momentum != 0.9:
                raise ValueError(
                    "KFAC: learning_rate and momentum belong to the default inner optimizer; set "
                    f"them on the {type(inner).__name__} that you pass"
                )
        self.inner_optimizer = inner
        scheduled = {
            option: value if callable(value) else self._add_scalar(option, value)
            for option, value in base_values.items()
        }
        self._engine = Engine(settings, base_values, scheduled)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_HAS_AGGREGATE_GRAD" in cls.__dict__:  # the class that Horovod makes of a KFAC
            raise TypeError(
                "KFAC averages gradients and factors over Horovod's ranks by itself: pass it to "
                "compile() as it is, without hvd.DistributedOptimizer"
            )

    # --- what differs between Keras versions ---

    #: Of the Keras optimizer.
    name: str
    iterations: Any
    gradient_accumulation_steps: int | None
    learning_rate: Any
    built: bool
    _variables: list[Any]

    def _start(self, **arguments: Any) -> None:
        """The Keras optimizer's `__init__`."""
        raise NotImplementedError

    def _check_inner_optimizer(self, optimizer: Any) -> None:
        """Raises ValueError for an optimizer that cannot receive the preconditioned gradient."""
        raise NotImplementedError

    def _add_scalar(self, option: str, value: Any) -> Any:
        """A new variable of the optimizer: float32 for damping, else int64."""
        raise NotImplementedError

    def _index(self, variable: Any) -> int:
        """The number of a variable that the optimizer was built for."""
        raise NotImplementedError

    def _built_for(self) -> Sequence[Any]:
        """The variables that the optimizer was built for."""
        raise NotImplementedError

    def _inner_variables(self) -> list[Any]:
        """Variables of the inner optimizer."""
        raise NotImplementedError

    # --- state ---

    @property
    def base_values(self) -> dict[str, Schedulable]:
        """Values given to the constructor; schedules and callbacks compute from them."""
        return self._engine.base_values

    @property
    def variables(self) -> list[Any]:
        """Variables of this optimizer and of the inner one.

        Without the layers' factors and bases, which exist only after the first training step: see
        `state_variables`. They are saved and restored with the optimizer all the same.
        """
        return [*self._variables, *self._inner_variables()]

    @property
    def state_variables(self) -> dict[str, tf.Variable]:
        """Factors, bases and counters of all layers by name; empty before the first step."""
        preconditioner = self._engine.preconditioner
        return {} if preconditioner is None else preconditioner.state()

    @property
    def layers(self) -> list[LayerState]:
        """State of each preconditioned layer; empty before the first step."""
        preconditioner = self._engine.preconditioner
        return [] if preconditioner is None else list(preconditioner.layers.values())

    # --- schedules ---

    @property
    def damping(self) -> tf.Tensor:
        """Current damping λ."""
        return self._engine.current("damping", self.iterations)

    @damping.setter
    def damping(self, value: float) -> None:
        check_range("damping", value, value > 0, "positive")
        self._engine.assign("damping", value)

    @property
    def factor_interval(self) -> tf.Tensor:
        """Current number of updates between factor updates."""
        return self._engine.current("factor_interval", self.iterations)

    @factor_interval.setter
    def factor_interval(self, value: float) -> None:
        self._engine.assign("factor_interval", max(1, round(value)))

    @property
    def eigen_interval(self) -> tf.Tensor:
        """Current number of updates between decompositions."""
        return self._engine.current("eigen_interval", self.iterations)

    @eigen_interval.setter
    def eigen_interval(self, value: float) -> None:
        self._engine.assign("eigen_interval", max(1, round(value)))

    # --- the update ---

    def _discover(self, grads: Sequence[Gradient], variables: Sequence[Any]) -> None:
        """Reads the layers off the graph of `grads`."""
        weights = [Weight(variable_path(v), tuple(v.shape), self._index(v)) for v in variables]

        def describe() -> dict[str, str]:
            return {
                "gradient_accumulation_steps": str(self.gradient_accumulation_steps),
                "updates": str(number(self.iterations)),
            }

        self._engine.discover(
            grads, weights, _dtypes(variables), describe, type(self.inner_optimizer).__name__
        )

    # --- report ---

    def report(self) -> report.Report:
        """What K-FAC does with each variable, and how it fares; `print` it.

        Raises:
            RuntimeError: Before the first training step, when nothing is known.
        """
        preconditioner = self._engine.preconditioner
        if preconditioner is None:
            raise RuntimeError("KFAC: report() needs one training step first")
        names = {self._index(v): variable_path(v) for v in self._built_for()}
        shapes = {self._index(v): tuple(v.shape) for v in self._built_for()}
        values = {
            "updates": int(np.asarray(self.iterations)),
            "learning rate": float(np.asarray(self.learning_rate)),
            "damping": float(self.damping),
            "factor interval": int(self.factor_interval),
            "eigen interval": int(self.eigen_interval),
        }
        return report.make(preconditioner, names, shapes, self._engine.plain, values)

    # --- saving ---

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments; the inner optimizer is always spelled out."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        for own in ("learning_rate", "jit_compile", "is_legacy_optimizer"):
            config.pop(own, None)
        config.update(dataclasses.asdict(self._engine.settings))
        for option, value in self.base_values.items():
            config[option] = (
                keras.saving.serialize_keras_object(value) if callable(value) else value
            )
        config["optimizer"] = keras.saving.serialize_keras_object(self.inner_optimizer)
        return config

    @classmethod
    def from_config(
        cls: type[Self], config: dict[str, Any], custom_objects: dict | None = None
    ) -> Self:
        """The optimizer that `get_config` described."""
        config = dict(config)
        for option in ("optimizer", "damping", "factor_interval", "eigen_interval"):
            if isinstance(config.get(option), dict):
                config[option] = cls._deserialize(option, config[option], custom_objects)
        return cls(**config)

    @staticmethod
    def _deserialize(option: str, config: dict[str, Any], custom_objects: dict | None) -> Any:
        return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        """Writes this optimizer's variables, the layer plans and the layers' state.

        Nothing before `build`: there is no state to speak of.
        """
        if not self.built:
            return
        for i, variable in enumerate(self.variables):
            store[str(i)] = variable.numpy()
        preconditioner = self._engine.preconditioner
        if preconditioner is None:
            return
        if not preconditioner.is_complete():
            raise RuntimeError(
                f"KFAC: rank {preconditioner.communication.rank} holds no bases of layers that "
                f"other ranks precondition (placement={self._engine.settings.placement!r}): save "
                "on rank 0, which keeps what a checkpoint needs"
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
        preconditioner = self._engine.preconditioner
        if preconditioner is None and plans:
            preconditioner = self._engine.create_preconditioner(_dtypes(self._built_for()))
        if preconditioner is not None:
            # A step that was traced before goes on with the same variables.
            names = {key for key in stored if key.startswith("kfac_")} - {_PLAN_KEY}
            preconditioner.restore(
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
                name = variable_path(variable)
                raise ValueError(
                    f"KFAC: the checkpoint holds shape {stored.get(key)} for {name} of shape "
                    f"{tuple(variable.shape)}: {cause}"
                )


def variable_path(variable: Any) -> str:
    """A variable's name with those of its layers, as far as Keras knows them."""
    return getattr(variable, "path", None) or variable.name.removesuffix(":0")


def _dtypes(variables: Sequence[Any]) -> list[tf.DType]:
    return [tf.as_dtype(variable.dtype) for variable in variables]
