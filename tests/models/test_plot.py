"""Pictures of logs."""

import matplotlib.image
import pytest

from models.plot import main, read_log
from models.run_directory import COLUMNS, LogRow, RunDirectory
from tfkfac.errors import InputError


def write_log(path, epochs=3):
    run = RunDirectory(path)
    path.mkdir(parents=True)
    for epoch in range(1, epochs + 1):
        run.append(LogRow(epoch, 5 * epoch, *[epoch / 10] * 8))
    return str(path)


@pytest.fixture
def runs(tmp_path):
    return [write_log(tmp_path / "sgd"), write_log(tmp_path / "kfac", 2)]


def test_a_log_reads_as_it_was_written(runs):
    rows = read_log(RunDirectory(runs[1]).log)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["val_loss"] for row in rows] == [0.1, 0.2]


def test_writes_a_picture(runs, tmp_path):
    out = tmp_path / "compared.png"
    assert main([*runs, "--out", str(out), "--x", "epoch", "--y", "val_loss"]) == 0
    pixels = matplotlib.image.imread(out)
    assert pixels.shape[0] > 300
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[-1])}) > 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["compared.png", "kfac", "sgd"]


def test_names_the_runs(runs, tmp_path):
    write_log(tmp_path / "again" / "sgd")
    out = tmp_path / "names.svg"
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        assert main([*runs, "--out", str(out), "--x", "seconds"]) == 0
        text = out.read_text()
        assert ">sgd<" in text
        assert ">kfac<" in text
        assert ">training time without evaluation (s)<" in text
        assert main([runs[0], str(tmp_path / "again" / "sgd"), "--out", str(out)]) == 0
        assert f">{tmp_path}/again/sgd<" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--y", "val_acuracy"], "--y: unknown column val_acuracy (did you mean val_accuracy?)"),
        (["--x", "time"], "--x: unknown column time ("),
        (["--colour", "red"], "models-plot: unknown option --colour"),
    ],
)
def test_wrong_options(runs, tmp_path, arguments, message, capsys):
    assert main([*runs, "--out", str(tmp_path / "a.png"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [("a.xyz", "the suffix must be one of"), ("absent/a.png", "no directory")],
)
def test_wrong_target(runs, tmp_path, out, message, capsys):
    assert main([*runs, "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "log.csv: no readable log"),
        ("", "log.csv: no finished epoch in it"),
        (",".join(COLUMNS) + "\n", "log.csv: no finished epoch in it"),
        ("epoch,step\n1,2\n", "log.csv:1: no column seconds; expected a log of models-train"),
        (",".join(COLUMNS) + "\n1,x" + ",1" * 8 + "\n", "log.csv:2: could not convert string"),
        (",".join(COLUMNS) + "\n1,2\n", "log.csv:2: 2 values for 10 columns"),
    ],
)
def test_wrong_logs_are_named(tmp_path, text, message):
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_log(path)
    assert str(raised.value).startswith(f"{tmp_path}/{message}")


def test_no_run_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path / "absent"), "--out", str(tmp_path / "a.png")]) == 2
    assert "absent/log.csv: no readable log" in capsys.readouterr().err
