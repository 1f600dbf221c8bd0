"""The traced step: what KFAC itself finds, positions by hand, FLOPs within their known order."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.tfkfac.training import compiled, fit
from tfkfac import KFAC, model_trace
from tfkfac.errors import InputError
from tfkfac.model_trace import Subject, trace
from tfkfac.planning import Layout

BATCH = 5


def positions(model, inputs=None, length=None):
    """M of each layer's weight, by the owner's name."""
    workload = trace(Subject("model", model, inputs), BATCH, length)
    owners = [
        layer.name.removeprefix("sequential/").rpartition("/")[0] for layer in workload.layers
    ]
    return dict(zip(owners, (layer.positions for layer in workload.layers), strict=True))


def test_layers_are_those_that_kfac_finds():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, use_bias=False, name="first"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(3, name="second"),
        ]
    )
    workload = trace(Subject("model", model), BATCH)
    before = [np.array(weight) for weight in model.get_weights()]
    compiled(KFAC(), model=model)
    fit(model)
    plans = [state.plan for state in model.optimizer.layers]
    assert [layer.name for layer in workload.layers] == [plan.name for plan in plans]
    for layer, plan in zip(workload.layers, plans, strict=True):
        assert (layer.rows, layer.columns, layer.groups) == (plan.rows, plan.columns, plan.groups)
    assert workload.parameters == sum(weight.size for weight in before)


def test_the_step_is_not_executed():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    before = [np.array(weight) for weight in model.get_weights()]
    trace(Subject("model", model), BATCH)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_positions_of_convolutions():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="valid"),  # 6x6
            layers.Conv2D(4, 3, strides=2, padding="same", name="strided"),  # 3x3
            layers.Conv2D(4, 2, padding="same", groups=2, name="grouped"),
            layers.DepthwiseConv2D(2, padding="same", name="depthwise"),
            layers.Conv2DTranspose(2, 2, strides=2, name="transposed"),  # 3x3 inputs
            layers.Flatten(),
            layers.Dense(3, name="dense"),
        ]
    )
    found = positions(model)
    assert found["valid"] == BATCH * 36
    assert found["strided"] == found["grouped"] == found["depthwise"] == BATCH * 9
    assert found["transposed"] in (BATCH * 9, BATCH)  # the kernel, then its bias alone
    assert found["dense"] == BATCH


def test_positions_of_sequences_and_shared_layers():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, 4, name="embedding")(inputs)
    shared = layers.Dense(4, name="shared")
    x = shared(shared(x))
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.GlobalMaxPooling1D()(x)))
    found = positions(model, length=7)
    assert found["embedding"] == found["attention/query"] == BATCH * 7
    assert found["shared"] == 2 * BATCH * 7
    assert found["last"] == BATCH


def test_open_dimensions_need_a_length():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    with pytest.raises(InputError, match=r"leaves a dimension open; set it with --length"):
        trace(Subject("model", model), BATCH)


def test_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(5, name="hidden")(a)
    both = layers.Concatenate()([hidden, b])
    model = keras.Model(
        {"a": a, "b": b}, {"x": layers.Dense(2, name="x")(both), "y": layers.Dense(3, name="y")(b)}
    )
    assert positions(model) == {"hidden": BATCH, "x": BATCH, "y": BATCH}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs, training=False):
        return self.dense(inputs["features"])


def test_a_model_without_inputs_takes_an_example():
    with pytest.raises(InputError, match="does not say what its inputs are"):
        trace(Subject("model", Subclassed()), BATCH)
    example = {"features": np.zeros((1, 3), "float32")}
    workload = trace(Subject("model", Subclassed(), example), BATCH)
    [layer] = workload.layers
    assert (layer.rows.size, layer.columns.size, layer.positions) == (4, 2, BATCH)


def test_flops_of_a_dense_layer():
    model = keras.Sequential([keras.Input((40,)), layers.Dense(30, use_bias=False)])
    workload = trace(Subject("model", model), BATCH)
    product = 2 * BATCH * 40 * 30
    # Forward, and the gradient of the weight; nothing asks for the input's.
    assert workload.training_flops == pytest.approx(2 * product, rel=0.2)
    assert workload.factor_flops == pytest.approx(2 * BATCH * (40**2 + 30**2), rel=0.2)
    assert sum(layer.factor_flops() for layer in workload.layers) == 2 * BATCH * (40**2 + 30**2)


def test_factors_are_counted_on_demand():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert trace(Subject("model", model), BATCH, count_factors=False).factor_flops is None


def test_the_layout_decides_structures():
    model = keras.Sequential([keras.Input((9,)), layers.Dense(3), layers.LayerNormalization()])
    workload = trace(Subject("model", model), BATCH, layout=Layout(4, "block-diagonal", "plain"))
    [layer] = workload.layers
    assert (layer.rows.structure, layer.rows.blocks) == ("block-diagonal", 3)


def test_regularisers_do_not_hide_a_layer():
    regularised = layers.Dense(3, kernel_regularizer="l2", name="dense")
    assert positions(keras.Sequential([keras.Input((4,)), regularised])) == {"dense": BATCH}


def test_nothing_to_train():
    frozen = keras.Sequential([keras.Input((4,)), layers.Dense(3, trainable=False)])
    with pytest.raises(InputError, match="no trainable variables"):
        trace(Subject("frozen", frozen), BATCH)


def test_a_step_that_cannot_be_traced():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(InputError, match="model: its training step: "):
        trace(Subject("model", model, np.zeros((1, 5), "float32")), BATCH)


def test_built_in_models():
    subject = model_trace.load("resnet8", ("resnet8",))
    assert subject.model.input_shape == (None, 8, 8, 1)
