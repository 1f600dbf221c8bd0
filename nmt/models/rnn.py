"""The attentional recurrent network: bidirectional LSTMs read, an LSTM with attention writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nmt.models.attention import SingleHeadAttention, padding_bias
from nmt.models.config import ModelConfig
from nmt.models.embeddings import OutputLayer, WordEmbedding, at_least_float32
from nmt.models.feedback import Feedback, FeedbackLoop, FreeRun
from nmt.models.interface import DecoderState, TranslationModel
from nmt.models.recurrence import (
    BidirectionalLSTM,
    HoistedProduct,
    LSTMCell,
    Tensors,
    for_loop,
    gate_bias,
    loop_product,
    swap_time,
    time_loop,
)
from nmt.subwords import BEGIN, PAD

# (name of a product inside the decoder's step, its input) -> the product
Multiply = Callable[[str, tf.Tensor], tf.Tensor]


class RecurrentNetwork(TranslationModel):
    """Encoder, attention and decoder of Luong et al. (2015), with the attention of either paper.

    With the target embedding y of the word before, the attentional vector a of the step before
    (left out without input feeding), and the states h of the decoder's LSTMs:

        h'₀ = LSTM([y, a], h₀),  h'ₗ = LSTM(h'ₗ₋₁, hₗ)
        context, weights = attention(h', annotations)
        a' = tanh(W [h', context] + b)

    a' is what `logits` maps to the vocabulary. Dropout acts on embeddings, annotations, between
    decoder layers, and on a' on its way to the output layer.

    A decoding state's tensors are [batch, copies, size].
    """

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.units, tied = config.decoder_units, config.tied_embeddings
        self.output_size = config.output_size or (
            config.decoder_units if tied == "none" else config.embedding_size
        )
        self._make_encoder(config)
        self._make_decoder(config)
        self.output_layer = OutputLayer(
            config.target_vocabulary, tied != "none", name="output_layer"
        )
        self.output_layer.build((None, self.output_size))
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.recurrent_dropout = keras.layers.Dropout(
            config.recurrent_dropout, name="recurrent_dropout"
        )
        self.built = True

    def _make_encoder(self, config: ModelConfig) -> None:
        size = config.embedding_size
        self.target_embedding = WordEmbedding(
            config.target_vocabulary, size, name="target_embedding"
        )
        self.target_embedding.build()
        self.source_embedding = self.target_embedding
        if config.tied_embeddings != "all":
            self.source_embedding = WordEmbedding(
                config.source_vocabulary, size, name="source_embedding"
            )
            self.source_embedding.build()
        annotation_size = 2 * config.encoder_units
        self.encoder_layers = [
            BidirectionalLSTM(
                annotation_size if i else size,
                config.encoder_units,
                config.layer_normalization,
                name=f"encoder_{i}",
            )
            for i in range(config.encoder_layers)
        ]
        self.initial_maps = []
        if config.initial_state != "zero":
            for i in range(config.decoder_layers):
                layer = keras.layers.Dense(self.units, activation="tanh", name=f"initial_{i}")
                layer.build((None, annotation_size))
                self.initial_maps.append(layer)

    def _make_decoder(self, config: ModelConfig) -> None:
        annotation_size, gates = 2 * config.encoder_units, 4 * self.units
        additive = config.attention == "additive"
        attention_size = (config.attention_size or self.units) if additive else self.units
        self.attention = SingleHeadAttention(
            config.attention, annotation_size, attention_size, name="attention"
        )
        self.input_projection = keras.layers.Dense(
            gates,
            use_bias=not config.layer_normalization,
            bias_initializer=gate_bias,
            name="input_projection",
        )
        self.input_projection.build((None, config.embedding_size))
        fed = self.output_size if config.input_feeding else 0
        # Products inside the time loop, and what is added to them: sizes by name.
        sizes = {"gates_0": (fed + self.units, gates)}
        for i in range(1, config.decoder_layers):
            sizes[f"gates_{i}"] = (2 * self.units, gates)
        if additive:
            sizes["query"] = (self.units, attention_size)
        sizes["attentional"] = (self.units + annotation_size, self.output_size)
        self.kernels, self.biases = {}, {}
        for name, shape in sizes.items():
            self.kernels[name] = self.add_weight(
                name=f"{name}_kernel", shape=shape, initializer="glorot_uniform"
            )
            is_gates = name.startswith("gates")
            # Biases of the first gates belong to `input_projection`; normalised gates have shifts.
            if not is_gates or (name != "gates_0" and not config.layer_normalization):
                self.biases[name] = self.add_weight(
                    name=f"{name}_bias",
                    shape=shape[1:],
                    initializer=gate_bias if is_gates else "zeros",
                )
        self.cells = []
        for i in range(config.decoder_layers):
            cell = LSTMCell(
                self.units, config.layer_normalization, one_product=i > 0, name=f"cell_{i}"
            )
            cell.build()
            self.cells.append(cell)

    # --- the encoder ---

    def encode(self, source: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Annotations [batch, S, 2 units], their keys, the bias of padding, and a summary."""
        present = tf.not_equal(source, PAD)
        x = self.dropout(self.source_embedding(source), training=training)
        for layer in self.encoder_layers:
            x, last = layer(x, present)
            x = self.dropout(x, training=training)
        if self.config.initial_state == "mean":
            share = tf.cast(present, x.dtype)
            share /= tf.maximum(tf.reduce_sum(share, axis=1, keepdims=True), 1)
            last = tf.squeeze(tf.matmul(share[:, tf.newaxis], x), 1)
        return {
            "annotations": x,
            "keys": self.attention.keys(x),
            "bias": padding_bias(present, self.compute_dtype)[:, tf.newaxis],
            "summary": last,
        }

    # --- all words at once ---

    def teacher_forced(
        self, inputs: dict[str, tf.Tensor], training: bool = False, encoding: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if encoding is None:
            encoding = self.encode(inputs["source"], training)
        words = tf.pad(inputs["target"][:, :-1], [(0, 0), (1, 0)], constant_values=BEGIN)
        state, history = self._start_alone(encoding, training)
        embedded = self.dropout(self.target_embedding(words), training=training)
        addends, from_input = self.cells[0].prepare(self.input_projection(embedded))
        products = {name: HoistedProduct(self._cast(k)) for name, k in self.kernels.items()}
        loop_inputs = {}
        for name, product in products.items():
            if name != "gates_0":
                addends = self._biases(name, tf.shape(words))
            loop_inputs[name] = swap_time(product.before(addends))
        if from_input is not None:
            loop_inputs["from_input"] = swap_time(from_input)

        def step(history: Any, now: Tensors) -> tuple[Any, Tensors]:
            read = {}

            def multiply(name: str, x: tf.Tensor) -> tf.Tensor:
                read[name] = x
                return products[name](x) + now[name]

            history, weights = self._advance(
                state.source, history, multiply, now.get("from_input"), copies=1
            )
            return history, {**read, "outputs": history["attentional"], "weights": weights}

        outputs = self._loop_outputs(products)
        outputs["outputs"] = tf.TensorSpec([None, self.output_size], self.compute_dtype)
        _, found = time_loop(step, history, loop_inputs, outputs)
        for name, product in products.items():
            product.after(found[name])
        attentional = self.dropout(swap_time(found["outputs"]), training=training)
        return attentional, swap_time(found["weights"])

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.output_layer(outputs, self.target_embedding.embeddings)

    # --- all words, one after the other ---

    def free_running(
        self, encoding: dict[str, tf.Tensor], feedback: Feedback, training: bool = False
    ) -> FreeRun:
        batch, time_first = tf.shape(encoding["summary"])[0], [1, 0, 2]
        state, history = self._start_alone(encoding, training)
        loop = FeedbackLoop(feedback, self.target_embedding, self.output_layer, batch)
        shape = tf.stack([batch, feedback.steps])
        products = {name: HoistedProduct(self._cast(k)) for name, k in self.kernels.items()}
        products["input"] = HoistedProduct(self._cast(self.input_projection.kernel))
        loop_inputs = loop.inputs()
        for name, product in products.items():
            addends = product.before(self._biases(name, shape))
            loop_inputs[name] = tf.transpose(addends, time_first)
        sizes = {"embedded": self.config.embedding_size, "attentional": self.output_size}
        if training and self.config.dropout:
            for name, size in sizes.items():
                ones = tf.ones([feedback.steps, batch, size], self.compute_dtype)
                loop_inputs[f"kept_{name}"] = self.dropout(ones, training=True)

        def dropped(x: tf.Tensor, name: str, now: Tensors) -> tf.Tensor:
            kept = now.get(f"kept_{name}")
            return x if kept is None else x * kept

        def step(state_: Any, now: Tensors) -> tuple[Any, Tensors]:
            history, embedded = state_
            read = {}

            def product(name: str, x: tf.Tensor) -> tf.Tensor:
                read[name] = x
                return products[name](x) + now[name]

            words = dropped(loop.read(embedded, now), "embedded", now)
            addend, from_input = self.cells[0].prepare(product("input", words))

            def multiply(name: str, x: tf.Tensor) -> tf.Tensor:
                return product(name, x) + addend if name == "gates_0" else product(name, x)

            history, weights = self._advance(state.source, history, multiply, from_input, copies=1)
            output = dropped(history["attentional"], "attentional", now)
            embedded, found = loop(output, now)
            return (history, embedded), {**read, **found, "weights": weights}

        outputs = self._loop_outputs(products) | loop.outputs(self.output_size)
        begin = loop.begin(tf.fill([batch], BEGIN))
        _, found = time_loop(step, (history, begin), loop_inputs, outputs)
        for name, product in products.items():
            product.after(found[name])
        return FreeRun(loop.finish(found), found[loop.SAMPLES], found["weights"])

    def _start_alone(
        self, encoding: dict[str, tf.Tensor], training: bool
    ) -> tuple[DecoderState, dict[str, Any]]:
        """The state before the first step, and its history without an axis of copies."""
        state = self.start(encoding, 0, training=training)
        return state, tf.nest.map_structure(lambda tensor: tf.squeeze(tensor, 1), state.history)

    def _biases(self, name: str, lead: tf.Tensor) -> tf.Tensor:
        """The bias of a product inside the time loop, for each of its rows."""
        bias = self._bias(name)
        shape = tf.concat([lead, tf.shape(bias)], 0)
        return tf.nn.bias_add(tf.zeros(shape, self.compute_dtype), bias)

    def _loop_outputs(self, products: dict[str, HoistedProduct]) -> dict[str, tf.TensorSpec]:
        """What every time loop of the decoder makes."""
        outputs = {
            name: tf.TensorSpec([None, product.kernel.shape[0]], self.compute_dtype)
            for name, product in products.items()
        }
        weights = tf.TensorSpec([None, None], at_least_float32(self.compute_dtype))
        return {**outputs, "weights": weights}

    # --- word by word ---

    def start(
        self,
        encoding: dict[str, tf.Tensor],
        steps: tf.Tensor | int,
        copies: int = 1,
        training: bool = False,
    ) -> DecoderState:
        summary = encoding["summary"]
        batch, layers = tf.shape(summary)[0], len(self.cells)
        zeros = tf.zeros([batch, self.units], self.compute_dtype)
        hidden = [layer(summary) for layer in self.initial_maps] or [zeros] * layers
        history = {
            "hidden": hidden,
            "memory": [zeros] * layers,
            "attentional": tf.zeros([batch, self.output_size], self.compute_dtype),
        }
        history = tf.nest.map_structure(
            lambda tensor: tf.repeat(tensor[:, tf.newaxis], copies, axis=1), history
        )
        if training and self.config.recurrent_dropout:
            ones = tf.ones([batch, copies, self.units], self.compute_dtype)
            history["kept"] = [self.recurrent_dropout(ones, training=True) for _ in self.cells]
        source = {name: encoding[name] for name in ("annotations", "keys", "bias")}
        kernels = {**self.kernels, "input": self.input_projection.kernel}
        weights = {name: for_loop(self._cast(kernel)) for name, kernel in kernels.items()}
        return DecoderState(tf.constant(0), source, history, weights)

    def advance(
        self, state: DecoderState, inputs: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, DecoderState, tf.Tensor]:
        copies = state.history["attentional"].shape[1]
        words = tf.convert_to_tensor(inputs)
        if not words.dtype.is_floating:
            words = self.embed_target(words)
        words = self.dropout(words, training=training)
        projected = loop_product(words, state.weights["input"], 4 * self.units)
        if self.input_projection.use_bias:
            projected += self._cast(self.input_projection.bias)
        addend, from_input = self.cells[0].prepare(projected)

        def multiply(name: str, x: tf.Tensor) -> tf.Tensor:
            product = loop_product(x, state.weights[name], self.kernels[name].shape[1])
            return product + (addend if name == "gates_0" else self._bias(name))

        rows = tf.nest.map_structure(
            lambda tensor: tf.reshape(tensor, [-1, tensor.shape[-1]]), state.history
        )
        rows, attention = self._advance(state.source, rows, multiply, from_input, copies)
        history = tf.nest.map_structure(
            lambda tensor: tf.reshape(tensor, [-1, copies, tensor.shape[-1]]), rows
        )
        outputs = self.dropout(rows["attentional"], training=training)
        return outputs, state._replace(step=state.step + 1, history=history), attention

    def _advance(
        self,
        source: Tensors,
        history: dict[str, Any],
        multiply: Multiply,
        from_input: tf.Tensor | None,
        copies: int,
    ) -> tuple[dict[str, Any], tf.Tensor]:
        """The decoder's step on tensors [rows, size].

        Args:
            source: from `start`.
            history: from `start`, as rows.
            multiply: the product of an input with the kernel of a name, plus its addend.
            from_input: see `LSTMCell.prepare`.
            copies: rows per sentence.

        Returns:
            The next history, and attention weights [rows, S].
        """
        below = [history["attentional"]] if self.config.input_feeding else []
        hidden, memory = [], []
        for i, cell in enumerate(self.cells):
            before = history["hidden"][i]
            if "kept" in history:
                before *= history["kept"][i]
            new = cell(
                multiply(f"gates_{i}", tf.concat([*below, before], axis=-1)),
                from_input if i == 0 else None,
                history["memory"][i],
            )
            hidden.append(new[0])
            memory.append(new[1])
            below = [new[0]]
        top = hidden[-1]
        query = multiply("query", top) if "query" in self.kernels else top
        context, weights = self.attention(
            tf.reshape(query, [-1, copies, query.shape[-1]]),
            source["keys"],
            source["annotations"],
            source["bias"],
        )
        context = tf.reshape(context, [-1, context.shape[-1]])
        weights = tf.reshape(weights, [-1, tf.shape(weights)[-1]])
        attentional = tf.tanh(multiply("attentional", tf.concat([top, context], axis=-1)))
        history = {**history, "hidden": hidden, "memory": memory, "attentional": attentional}
        return history, weights

    def _cast(self, variable: keras.Variable) -> tf.Tensor:
        return tf.cast(variable, self.compute_dtype)

    def _bias(self, name: str) -> tf.Tensor:
        bias = self.input_projection.bias if name == "input" else self.biases.get(name)
        if bias is None:
            kernel = self.input_projection.kernel if name == "input" else self.kernels[name]
            return tf.zeros(kernel.shape[1:], self.compute_dtype)
        return self._cast(bias)

    def reorder(self, state: DecoderState, parents: tf.Tensor) -> DecoderState:
        history = tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, parents, batch_dims=1), state.history
        )
        return state._replace(history=history)

    def extend(self, state: DecoderState, steps: tf.Tensor | int) -> DecoderState:
        return state  # its size does not depend on the number of steps

    def embed_target(self, ids: tf.Tensor) -> tf.Tensor:
        return self.target_embedding(ids)

    def embed_target_mixture(self, weights: tf.Tensor) -> tf.Tensor:
        return self.target_embedding.mixture(weights)
