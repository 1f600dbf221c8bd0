"""The planning command, in this process: what it prints, draws and refuses."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import keras
import pytest

from tests.tfkfac.keras_versions import needs_keras_3
from tests.tfkfac.resnet_layers import resnet50_orders
from tfkfac import costs, layer_costs, machine, model_trace
from tfkfac.plan_command import built_in_models, main

MACHINE = """\
name: by hand
matmul_flops: 1e11
training_flops: 5e10
factor_flops: 2e10
memory_bandwidth: 1e10
operation_seconds: 1e-6
inside: {bandwidth: 1e9, latency: 1e-4}
across: {bandwidth: 1e9, latency: 1e-4}
eigh_rate: 1e9
"""

FUNCTIONS = """\
import keras, numpy

def dense():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

def with_example():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    return model, numpy.zeros((1, 6, 4), "float32")

def fails():
    raise RuntimeError("no such thing\\nsecond line")

def number():
    return 5

def plain():
    cell = keras.layers.LSTM(3)
    return keras.Sequential([keras.Input((5, 2)), cell])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with a machine, a module and a saved model, as the current one."""
    (tmp_path / "machine.yaml").write_text(MACHINE)
    (tmp_path / "functions_to_plan.py").write_text(FUNCTIONS)
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]).save(tmp_path / "saved.keras")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("functions_to_plan", None)


def plans(capsys, *arguments):
    """The predictions that the command prints as JSON."""
    assert main([*arguments, "--machine", "machine.yaml", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["plans"]


@pytest.mark.parametrize(
    ("model", "orders"),
    [
        ("saved.keras", [(7, 5)]),
        ("functions_to_plan:dense", [(5, 3)]),
        ("functions_to_plan:with_example", [(5, 3)]),
    ],
)
def test_models_from_everywhere(folder, capsys, model, orders):
    [plan] = plans(capsys, model, "--ranks", "1")
    assert plan["work"] == [sum(a**3 + g**3 for a, g in orders)]


def test_saved_networks_of_models(folder, capsys):
    model_trace.load("resnet8", ("resnet8",)).model.save("resnet8.keras")
    assert plans(capsys, "resnet8.keras", "--ranks", "2") == plans(
        capsys, "resnet8", "--ranks", "2"
    )


@needs_keras_3("it does not say which class is missing")
def test_a_saved_model_with_classes_of_its_own(folder, capsys):
    class Mine(keras.layers.Dense):
        pass

    keras.Sequential([keras.Input((4,)), Mine(3)]).save("mine.keras")
    assert main(["mine.keras", "--machine", "machine.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: mine.keras: Could not locate class 'Mine'")
    assert error.rstrip().endswith("that defines it and loads or makes the model.")
    assert len(error.splitlines()) == 1


def test_tables(folder, capsys):
    arguments = ["saved.keras", "--machine", "machine.yaml", "--ranks", "1,4", "--batch-size", "8"]
    assert main([*arguments, "--placement", "factor-wise,sc20-layer-wise", "--per-rank"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = [line.split() for line in output.out.splitlines()]
    assert output.out.startswith("saved.keras, 8 examples a rank, by hand\n")
    rows = [line for line in lines if line[:1] and line[0] in ("1", "4")]
    names = [row[1] for row in rows if row[1] in ("factor-wise", "sc20-layer-wise")]
    assert names == ["factor-wise", "sc20-layer-wise"] * 2 * 2
    # 7³ = 343 and 5³ = 125 on two of four ranks, or 468 on one.
    assert ["4", "factor-wise", "2.93", "2.93"] in [row[:4] for row in rows]
    assert ["4", "sc20-layer-wise", "4.00", "4.00"] in [row[:4] for row in rows]
    # What each rank does: rank 1 of four owns one factor.
    assert ["1", "1", "1.250e+02", "1.25e-07"] in [row[:4] for row in rows]
    assert all(line == line.rstrip() for line in output.out.splitlines())


def test_options_reach_the_prediction(folder, capsys):
    [plan] = plans(
        capsys,
        *("functions_to_plan:dense", "--ranks", "4", "--placement", "hybrid"),
        *("--gradient-worker-fraction", "0.25", "--refresh-above", "4", "--half"),
        *("--no-triangles", "--factor-interval", "3", "--eigen-interval", "7"),
        *("--balance", "memory", "--together", "--cost", "seconds"),
        *("--training-seconds", "2.5"),
    )
    assert plan["scheme"] == {
        "placement": "hybrid",
        "gradient_worker_fraction": 0.25,
        "round_robin": False,
        "together": True,
        "balance": "memory",
        "by_seconds": True,
        "triangles": False,
        "half": True,
        "refresh_above": 4,
        "method": "eigen",
        "factor_interval": 3,
        "eigen_interval": 7,
    }
    assert plan["gradient_workers"] == 1
    assert plan["seconds"]["training"] == 2.5
    assert plan["bytes"]["factor exchange"] == 2 * 3 / 4 * 2 * (25 + 9)
    assert plan["bytes_per_step"]["factor exchange"] == plan["bytes"]["factor exchange"] / 3


def test_sc20_sends_whole_float32_factors_whatever_the_options(folder, capsys):
    arguments = ("functions_to_plan:dense", "--ranks", "4", "--half", "--refresh-above", "1")
    ours, theirs = plans(capsys, *arguments, "--placement", "factor-wise,sc20-factor-wise")
    assert theirs["bytes"]["factor exchange"] == 2 * 3 / 4 * 4 * (25 + 9)
    assert ours["bytes"]["factor exchange"] == 2 * 3 / 4 * 2 * (3 * 6 + 2 * 4)
    assert theirs["work"] == [125, 27, 0, 0]
    assert ours["work_imbalance"] == pytest.approx(1)


def test_structures_of_factors(folder, capsys):
    [plan] = plans(capsys, "functions_to_plan:dense", "--ranks", "1", "--max-factor-size", "4")
    assert plan["work"] == [27]
    arguments = ("functions_to_plan:dense", "--ranks", "1", "--max-factor-size", "4")
    [plan] = plans(capsys, *arguments, "--oversized", "block-diagonal")
    assert plan["work"] == [2 * 27 + 27]
    [plan] = plans(capsys, "functions_to_plan:dense", "--ranks", "1", "--max-factor-size", "none")
    assert plan["work"] == [125 + 27]


def test_draws_curves(folder, capsys):
    arguments = ["saved.keras", "--machine", "machine.yaml", "--ranks", "1,2,4"]
    assert main([*arguments, "--placement", "factor-wise,hybrid", "--plot", "curves.png"]) == 0
    pixels = pytest.importorskip("matplotlib.image").imread(folder / "curves.png")
    assert pixels.shape[1] > 600
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[-1])}) > 10
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert names == ["curves.png", "functions_to_plan.py", "machine.yaml", "saved.keras"]


def test_curves_are_labelled(folder):
    import matplotlib

    arguments = ["saved.keras", "--machine", "machine.yaml", "--ranks", "1,2,4"]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        assert main([*arguments, "--placement", "factor-wise,hybrid", "--plot", "curves.svg"]) == 0
    text = (folder / "curves.svg").read_text()
    for label in ("factor-wise", "hybrid", "ranks", "mean step (s)"):
        assert f">{label}<" in text


def test_known_loads_of_resnet50(capsys):
    """Traced, not from the list of orders that other tests use."""
    subject = model_trace.load("resnet50", built_in_models())
    workload = model_trace.trace(subject, 2, count_factors=False)
    kernels = [layer for layer in workload.layers if layer_costs.has_basis(layer.columns)]
    orders = [(layer.rows.size, layer.columns.size) for layer in kernels]
    assert sorted(orders) == sorted(resnet50_orders())
    described = machine.read(machine.find("v100-cluster"))
    for ranks, in_turn, longest_first in ((4, 1.98, 1.00), (8, 2.02, 1.73), (16, 3.95, 3.46)):
        for expected, round_robin in ((in_turn, True), (longest_first, False)):
            scheme = costs.Scheme(round_robin=round_robin)
            prediction = costs.predict(workload, described, ranks, scheme)
            assert prediction.work_imbalance == pytest.approx(expected, abs=0.006)


# --- wrong input ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: MODEL"),
        (["resnet5"], "MODEL: unknown model resnet5 (did you mean resnet56?); also taken: a saved"),
        (["absent.keras"], "model: no file absent.keras"),
        (["broken.keras"], "broken.keras: Keras cannot load it: "),
        (["absent:model"], "model absent:model: ModuleNotFoundError: No module named 'absent'"),
        (["functions_to_plan:dens"], "unknown function dens (did you mean dense?)"),
        (["functions_to_plan:fails"], "it raised RuntimeError: no such thing\n"),
        (["functions_to_plan:number"], "expected a Keras model, or a model and example inputs"),
        (["functions_to_plan:plain"], "K-FAC finds nothing to precondition in its training step"),
        (["resnet8", "--ranks", "0"], "--ranks: expected whole numbers above 0 such as 4,8,16"),
        (["resnet8", "--ranks", "4,x"], "--ranks: expected whole numbers above 0 such as 4,8,16"),
        (["resnet8", "--placement", "hybird"], "unknown placement hybird (did you mean hybrid?)"),
        (
            ["resnet8", "--gradient-worker-fraction", "1.5"],
            "--gradient-worker-fraction: expected a number above 0, at most 1, not 1.5",
        ),
        (["resnet8", "--batch-size", "0"], "--batch-size: expected a whole number above 0"),
        (["resnet8", "--machine", "v10-cluster"], "unknown machine v10-cluster (did you mean v10"),
        (["resnet8", "--machine", "partial.yaml"], "partial.yaml: no key matmul_flops"),
        (["resnet8", "--machine", "lonely.yaml"], "lonely.yaml: no key across, the link between"),
        (["resnet8", "--method", "inverse", "--refresh-above", "9"], "only eigenbases can be"),
        (["resnet8", "--plot", "a.xyz"], "--plot a.xyz: the suffix must be .png, .pdf or .svg"),
        (["resnet8", "--plot", "no/a.png"], "--plot no/a.png: no directory no"),
        (["resnet8", "--rank", "4"], "tfkfac-plan: unknown option --rank (did you mean --ranks?)"),
        (["calibrate"], "the following arguments are required: --out"),
        (["calibrate", "--out", "no/a.yaml"], "--out no/a.yaml: no directory no"),
        (["calibrate", "--out", "a.yaml", "--orders", "5,0"], "--orders: expected whole numbers"),
    ],
)
def test_wrong_input_is_one_line(folder, capsys, arguments, message):
    (folder / "broken.keras").write_text("no archive")
    (folder / "partial.yaml").write_text(MACHINE.replace("matmul_flops: 1e11\n", ""))
    lonely = MACHINE.replace("across: {bandwidth: 1e9, latency: 1e-4}\n", "")
    (folder / "lonely.yaml").write_text(lonely)
    before = sorted(folder.iterdir())
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert len(output.err.splitlines()) == 1
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_help_and_errors_do_not_wait_for_tensorflow():
    script = """
        import sys
        from tfkfac.plan_command import main
        for arguments in (["--help"], ["calibrate", "--help"], ["resnet8", "--ranks", "0"]):
            try:
                main(arguments)
            except SystemExit as end:
                assert end.code == 0
        assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: tfkfac-plan MODEL" in done.stdout
    assert "v100-cluster" in done.stdout
    assert done.stderr.startswith("error: --ranks: expected")


def test_calibrates(folder, capsys, monkeypatch):
    """What is measured is tested with `tfkfac.calibration`."""
    from tfkfac import calibration

    def measure(name, orders, hvd, progress):
        assert (orders, hvd) == ((8, 16), None)
        return dataclasses.replace(machine.read(folder / "machine.yaml"), name=name)

    monkeypatch.setattr(calibration, "measure", measure)
    assert main(["calibrate", "--out", "mine.yaml", "--orders", "8,16", "--name", "mine"]) == 0
    assert capsys.readouterr().out == "wrote mine.yaml\n"
    assert "Measured by `tfkfac-plan calibrate` on 1 rank" in (folder / "mine.yaml").read_text()
    assert machine.read(folder / "mine.yaml").name == "mine"
    assert main(["saved.keras", "--machine", "mine.yaml", "--ranks", "1"]) == 0
