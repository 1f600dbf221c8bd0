"""Recurrent layers whose large products are kept out of the time loop.

Whatever does not depend on the recurrence is computed for all steps at once, before or after the
loop. That includes the gradient of the weights inside: the sum over steps of xₜᵀ δₜ is one product
of all xₜ with all δₜ, formed after the backward loop. That saves a running sum of matrices, and a
product of a layer's inputs with its output gradients is also what K-FAC looks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Tensors = dict[str, tf.Tensor]
# (state, this step's slice of every input) -> (next state, outputs)
LoopStep = Callable[[Any, Tensors], tuple[Any, Tensors]]


def time_loop(
    step: LoopStep,
    state: Any,
    inputs: Tensors,
    outputs: dict[str, tf.TensorSpec],
    steps: tf.Tensor | None = None,
) -> tuple[Any, Tensors]:
    """Runs `step` along the first axis of all inputs.

    Args:
        step: maps the state and a slice of each input to the next state and the outputs.
        state: nest of tensors.
        inputs: tensors [steps, ...] by name.
        outputs: shape and type of one step's outputs by name.
        steps: how many; default: as many as the inputs have.

    Returns:
        The last state, and the outputs of all steps by name, [steps, ...].
    """
    if steps is None:
        steps = tf.shape(next(iter(inputs.values())))[0]
    read = {
        name: tf.TensorArray(tensor.dtype, steps, element_shape=tensor.shape[1:]).unstack(tensor)
        for name, tensor in inputs.items()
    }
    written = {
        name: tf.TensorArray(spec.dtype, steps, element_shape=spec.shape)
        for name, spec in outputs.items()
    }

    def body(time: tf.Tensor, state: Any, written: Any) -> tuple[tf.Tensor, Any, Any]:
        state, new = step(state, {name: array.read(time) for name, array in read.items()})
        written = {name: array.write(time, new[name]) for name, array in written.items()}
        return time + 1, state, written

    _, state, written = tf.while_loop(
        lambda time, *_: time < steps,
        body,
        (tf.constant(0), state, written),
        maximum_iterations=steps,
    )
    return state, {name: array.stack() for name, array in written.items()}


def swap_time(tensor: tf.Tensor) -> tf.Tensor:
    """[batch, time, ...] -> [time, batch, ...], and back."""
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])


def for_loop(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel [in, out] as `loop_product` wants it.

    Rows that lie a multiple of 2,048 bytes apart compete for the same few places in a processor's
    cache, which halves the speed of products with few rows: such kernels get some more columns.
    """
    crowded = kernel.shape[1] % 512 == 0
    return tf.pad(kernel, [(0, 0), (0, 16)]) if crowded else kernel


def loop_product(x: tf.Tensor, kernel: tf.Tensor, size: int) -> tf.Tensor:
    """The product [rows, size] of x [rows, in] with a kernel from `for_loop`."""
    product = tf.matmul(x, kernel)
    return product if kernel.shape[1] == size else product[:, :size]


def _loop_product(x: tf.Tensor, kernel: tf.Tensor, padded: tf.Tensor) -> tf.Tensor:
    """The same, of a kernel that is a constant; backward, no column of padding is computed."""

    @tf.custom_gradient
    def product(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.matmul(upstream, kernel, transpose_b=True)

        return loop_product(x, padded, kernel.shape[1]), gradient

    return product(x)


class HoistedProduct:
    """yₜ = xₜ W + bₜ inside a time loop, with the gradient of W formed outside.

    `before` the loop gives the addends bₜ, whose gradients are those of yₜ; in the loop, calls give
    xₜ W; `after` the loop it is told all xₜ. The gradient with respect to W is then Σₜ xₜᵀ δₜ.

    Args:
        kernel: W [in, out].
    """

    def __init__(self, kernel: tf.Tensor) -> None:
        self.kernel = tf.convert_to_tensor(kernel)
        self._constant = tf.stop_gradient(self.kernel)
        self._in_loop = for_loop(self._constant)
        self._inputs: tf.Tensor | None = None

    def before(self, addends: tf.Tensor) -> tf.Tensor:
        """bₜ [batch, steps, out], to be added to the product at each step."""

        @tf.custom_gradient
        def hoisted(addends: tf.Tensor, kernel: tf.Tensor) -> Any:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                # By example first, so that K-FAC counts examples and steps as what they are.
                inputs = swap_time(self._inputs)
                rows = tf.reshape(inputs, [-1, kernel.shape[0]])
                columns = tf.reshape(upstream, [-1, kernel.shape[1]])
                return upstream, tf.matmul(rows, columns, transpose_a=True)

            return tf.identity(addends), gradient

        return hoisted(addends, self.kernel)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """xₜ W."""
        return _loop_product(x, self._constant, self._in_loop)

    def after(self, inputs: tf.Tensor) -> None:
        """All xₜ [steps, batch, in]."""
        self._inputs = inputs


class LSTMCell(keras.layers.Layer):
    """The part of an LSTM that follows its matrix products (Hochreiter and Schmidhuber, 1997).

    Of the gates' pre-activations, in the order input, forget, cell, output:

        c' = σ(f) c + σ(i) tanh(g),    h' = σ(o) tanh(c')

    With layer normalisation (Ba et al., 2016, equations 20 to 22) the product with the input, the
    product with the recurrent state, and c' inside the last tanh are each normalised. The shift of
    the first is then the bias.

    Args:
        units: of the state.
        layer_normalization: as above.
        directions: LSTMs that run side by side; tensors are then [..., directions, batch, units].
        one_product: the input and the state are multiplied together, and normalised together.
    """

    def __init__(
        self,
        units: int,
        layer_normalization: bool,
        directions: int = 1,
        one_product: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.normalizes = units, layer_normalization
        self.directions, self.one_product = directions, one_product

    def build(self, input_shape: Any = None) -> None:
        """Makes the scales and shifts of layer normalisation."""
        if self.normalizes:
            lead = (self.directions, 1) if self.directions > 1 else ()

            def weight(name: str, size: int, initializer: Any) -> keras.Variable:
                return self.add_weight(name=name, shape=(*lead, size), initializer=initializer)

            if not self.one_product:
                self.input_scale = weight("input_scale", 4 * self.units, "ones")
            self.input_shift = weight("input_shift", 4 * self.units, gate_bias)
            self.recurrent_scale = weight("recurrent_scale", 4 * self.units, "ones")
            self.memory_scale = weight("memory_scale", self.units, "ones")
            self.memory_shift = weight("memory_shift", self.units, "zeros")
        self.built = True

    def prepare(self, from_input: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """What becomes of the product with the input, [..., 4 * units], before the time loop.

        Returns:
            What is to be added to the product with the recurrent state, and what `call` is to add
            to that, normalised, or None.
        """
        if not self.normalizes:
            return from_input, None
        shift = tf.cast(self.input_shift, from_input.dtype)
        return tf.zeros_like(from_input), self._normalized(from_input, self.input_scale) + shift

    def call(
        self, gates: tf.Tensor, from_input: tf.Tensor | None, memory: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(h', c') [..., units].

        Args:
            gates: product with the recurrent state plus the first part of `prepare`.
            from_input: the second part of `prepare`; None too with `one_product`.
            memory: c [..., units].
        """
        if self.normalizes:
            shift = tf.cast(self.input_shift, gates.dtype) if from_input is None else from_input
            gates = self._normalized(gates, self.recurrent_scale) + shift
        enter, keep, new, leave = tf.split(gates, 4, axis=-1)
        memory = tf.sigmoid(keep) * memory + tf.sigmoid(enter) * tf.tanh(new)
        shown = memory
        if self.normalizes:
            shift = tf.cast(self.memory_shift, memory.dtype)
            shown = self._normalized(memory, self.memory_scale) + shift
        return tf.sigmoid(leave) * tf.tanh(shown), memory

    def _normalized(self, x: tf.Tensor, scale: keras.Variable) -> tf.Tensor:
        return keras.ops.layer_normalization(x, epsilon=1e-5) * tf.cast(scale, x.dtype)


def gate_bias(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
    """Initial biases [..., 4 * units]: 1 for the forget gate (Jozefowicz et al., 2015), else 0."""
    units = shape[-1] // 4
    forget = tf.one_hot(1, 4, dtype=dtype or keras.config.floatx())
    return tf.broadcast_to(tf.repeat(forget, units), shape)


class BidirectionalLSTM(keras.layers.Layer):
    """One encoder layer: an LSTM in each direction, both in one time loop.

    Args:
        input_size: of the layer's input.
        units: of each direction.
        layer_normalization: see `LSTMCell`.
    """

    def __init__(
        self, input_size: int, units: int, layer_normalization: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.projections, self.recurrent_kernels = [], []
        for direction in ("forward", "backward"):
            projection = keras.layers.Dense(
                4 * units,
                use_bias=not layer_normalization,
                bias_initializer=gate_bias,
                name=f"{direction}_projection",
            )
            with keras.name_scope(self.name):
                projection.build((None, input_size))
            self.projections.append(projection)
            self.recurrent_kernels.append(
                self.add_weight(
                    name=f"{direction}_recurrent_kernel",
                    shape=(units, 4 * units),
                    initializer="orthogonal",
                )
            )
        self.cell = LSTMCell(units, layer_normalization, directions=2, name="cell")
        with keras.name_scope(self.name):
            self.cell.build()
        self.built = True

    def call(self, x: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The states at every position, and the last state of each direction.

        Args:
            x: [batch, S, input size].
            present: bool [batch, S], False at padding, which leaves the state as it is.

        Returns:
            [batch, S, 2 * units] and [batch, 2 * units]; a direction's last state is the one after
            it has read the whole sentence.
        """
        projected = [projection(x) for projection in self.projections]
        projected[1] = tf.reverse(projected[1], [1])
        # batch x directions x S x 4 units
        addends, from_input = self.cell.prepare(tf.stack(projected, axis=1))
        products = [
            HoistedProduct(tf.cast(kernel, self.compute_dtype)) for kernel in self.recurrent_kernels
        ]
        hoisted = [
            product.before(addend)
            for product, addend in zip(products, tf.unstack(addends, 2, axis=1), strict=True)
        ]
        present = tf.stack([present, tf.reverse(present, [1])])[..., tf.newaxis]
        # steps x directions x batch x ...
        inputs = {
            "addends": tf.stack([swap_time(addend) for addend in hoisted], axis=1),
            "present": tf.transpose(present, [2, 0, 1, 3]),
        }
        if from_input is not None:
            inputs["from_input"] = tf.transpose(from_input, [2, 1, 0, 3])
        kernels = tf.stop_gradient(tf.stack([product.kernel for product in products]))

        def step(state: tuple[tf.Tensor, tf.Tensor], now: Tensors) -> tuple[Any, Tensors]:
            hidden, memory = state
            gates = tf.matmul(hidden, kernels) + now["addends"]
            new = self.cell(gates, now.get("from_input"), memory)
            state = (
                tf.where(now["present"], new[0], hidden),
                tf.where(now["present"], new[1], memory),
            )
            return state, {"before": hidden, "after": state[0]}

        zeros = tf.zeros([2, tf.shape(x)[0], self.units], self.compute_dtype)
        spec = tf.TensorSpec([2, None, self.units], self.compute_dtype)
        (last, _), states = time_loop(step, (zeros, zeros), inputs, {"before": spec, "after": spec})
        for product, hidden in zip(products, tf.unstack(states["before"], 2, axis=1), strict=True):
            product.after(hidden)
        forward, backward = tf.unstack(states["after"], 2, axis=1)
        both = tf.concat([forward, tf.reverse(backward, [0])], axis=-1)
        return swap_time(both), tf.concat(tf.unstack(last, 2), axis=-1)
