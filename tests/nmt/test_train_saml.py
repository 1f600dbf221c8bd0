"""`nmt-train` with other objectives than maximum likelihood."""

import pytest

from nmt.train import main
from tests.nmt.tasks import SMALL_RNN, log, write_task

FEW = [*SMALL_RNN, "--embedding-size", "16", "--encoder-units", "8", "--decoder-units", "16"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("text"), sorted, pairs=120)


def test_saml_after_maximum_likelihood(text, tmp_path, capsys):
    """Its terms are logged, pictures drawn, and a resumed training goes on with the same noise."""
    options = [*FEW, *text, "--objective", "saml", "--saml-start", "2", "--saml-warmup", "2"]
    options += ["--validate-every", "2", "--alignment-lines", "1,3", "--beam", "1"]
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    assert main([*options, "--updates", "4", "--out", whole]) == 0
    assert main([*options, "--updates", "2", "--out", parts]) == 0
    assert main(["--out", parts, "--resume", "--updates", "4"]) == 0
    rows = log(tmp_path / "whole")
    assert [row["saml_loss"] == "" for row in rows] == [True, False]
    assert all(float(row["mle_loss"]) > 0 for row in rows)
    assert 0 <= float(rows[-1]["sample_match"]) < 1 < float(rows[-1]["alignment_entropy"]) + 1
    again = log(tmp_path / "parts")
    for name in ("mle_loss", "saml_loss", "sample_match", "alignment_entropy", "validation_loss"):
        assert again[-1][name] == rows[-1][name], name
    pictures = sorted(path.name for path in (tmp_path / "whole" / "alignments").iterdir())
    assert pictures == [f"{u:08d}-line-{n}.png" for u in (2, 4) for n in (1, 3)]
    assert (
        main([*options, "--updates", "6", "--out", whole, "--overwrite", "--alignment-lines", "99"])
        == 2
    )
    assert "alignment_lines: there are only 40 lines, not 99" in capsys.readouterr().err


def test_differentiable_scheduled_sampling(text, tmp_path):
    options = [*FEW, *text, "--objective", "differentiable-scheduled-sampling", "--updates", "4"]
    options += ["--sampling-schedule", "linear", "--sampling-constant", "0.25", "--beam", "1"]
    options += ["--batch-tokens", "256"]
    assert main([*options, "--out", str(tmp_path / "model")]) == 0
    (row,) = log(tmp_path / "model")
    assert 0 <= float(row["sample_match"]) < 1
    assert 0.4 < float(row["reference_share"]) < 0.85  # 1, 0.75, 0.5, then 0.25


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--alignment-lines", "0", "expected numbers of lines, from 1"),
        ("--sampling-constant", "0.5", "0.5 is none for inverse-sigmoid; it must be 1 or more"),
        ("--sampler", "st", "(known: softmax, st-softmax, gumbel-softmax, "),
        ("--saml-weight", "1.5", "expected a number from 0 to 1"),
    ],
)
def test_wrong_options(option, value, message, text, tmp_path, capsys):
    assert main([*FEW, *text, option, value, "--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and option in error and message in error
