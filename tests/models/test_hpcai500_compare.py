"""Comparisons of made-up results: profiles and scores by hand, and what is not comparable."""

import dataclasses
import json
import math

import matplotlib.image
import pytest

from models.benchmark import comparison
from models.benchmark.comparison import compare
from models.hpcai500.command import main
from tests.models import benchmark_suite
from tests.models.benchmark_suite import OPTIONS, failed, plan, results_of, suite, trial
from tfkfac.errors import InputError


def hep(optimizer, pace, epochs=1, seed=1, **changes):
    """A trial of hep that reaches its target after so many epochs."""
    qualities = [0.5] * (epochs - 1) + [0.95]
    return trial(plan("hep", optimizer, seed=seed, repetition=seed, **changes), qualities, pace)


# ------------------------------------------------------------------------------------ the numbers


def test_ratios_profile_and_score():
    # hep: 20 and 10 s; cosmoflow: SGD's trials took 40 s, missed and failed, K-FAC 30 s.
    found = compare({"a": suite()})
    assert found.medians == {
        "sgd": {"hep tiny": 20.0, "cosmoflow tiny": math.inf},
        "kfac": {"hep tiny": 10.0, "cosmoflow tiny": 30.0},
    }
    assert found.ratios["sgd"] == {"hep tiny": 2.0, "cosmoflow tiny": math.inf}
    # Half of the tasks from τ = 2 on: 1/3 of the integral of 1/2 from 2 to 4.
    assert found.scores == {"kfac": 1.0, "sgd": pytest.approx(1 / 3)}
    assert found.profile("sgd") == [(1.0, 0.0), (2.0, 0.5), (4.0, 0.5)]
    assert found.profile("kfac") == [(1.0, 1.0), (4.0, 1.0)]
    assert found.ranking == ["kfac", "sgd"]
    assert found.repetitions["sgd"] == {"hep tiny": (3, 0), "cosmoflow tiny": (3, 2)}


def test_the_score_is_the_profile_s_integral():
    found = compare({"a": suite()}, limit=3.0)
    for name in found.medians:
        corners = found.profile(name)
        area = sum(
            (right - left) * share
            for (left, share), (right, _) in zip(corners, corners[1:], strict=False)
        )
        assert found.scores[name] == pytest.approx(area / 2)


@pytest.mark.parametrize(
    ("measure", "sgd", "kfac"),
    [("epochs", 2.0, 1.0), ("steps", 4.0, 2.0), ("energy", 1000.0, 500.0), ("cost", 1 / 120, None)],
)
def test_other_measures(measure, sgd, kfac):
    medians = compare({"a": suite()}, measure=measure).medians
    assert medians["sgd"]["hep tiny"] == pytest.approx(sgd)
    assert medians["kfac"]["hep tiny"] == pytest.approx(sgd / 2 if kfac is None else kfac)
    assert medians["sgd"]["cosmoflow tiny"] == math.inf


def test_the_median_of_two_trials_one_of_which_missed_is_infinite():
    missed = trial(plan("hep", "sgd", seed=2, repetition=2), [0.5] * 4)
    made = results_of([hep("sgd", 10), missed, hep("kfac", 10)])
    assert compare({"a": made}).medians["sgd"] == {"hep tiny": math.inf}


def test_where_nobody_reached_the_target():
    made = results_of([trial(plan("hep", name), [0.5] * 4) for name in ("sgd", "kfac")])
    assert compare({"a": made}).scores == {"sgd": 0.0, "kfac": 0.0}


def test_repetitions_of_two_files_are_pooled():
    one = results_of([hep("sgd", 10), hep("kfac", 10)])
    other = results_of([hep("sgd", 30, seed=2), hep("kfac", 20, seed=2)])
    found = compare({"one": one, "other": other})
    assert found.medians == {"sgd": {"hep tiny": 20.0}, "kfac": {"hep tiny": 15.0}}


def test_files_as_contestants():
    slow = results_of([hep("sgd", 30), hep("kfac", 10)])
    fast = results_of([hep("sgd", 10), hep("kfac", 10)])
    found = compare({"slow": slow, "fast": fast}, by="file")
    assert found.ratios == {
        "slow": {"hep tiny, sgd": 3.0, "hep tiny, kfac": 1.0},
        "fast": {"hep tiny, sgd": 1.0, "hep tiny, kfac": 1.0},
    }
    assert found.scores == {"slow": pytest.approx(2 / 3), "fast": 1.0}


def test_numbers_of_ranks_are_tasks_of_their_own():
    made = [hep(name, pace / ranks, ranks=ranks) for name, pace in (("sgd", 20), ("kfac", 10))
            for ranks in (1, 2)]  # fmt: skip
    found = compare({"a": results_of(made)})
    assert found.tasks == ["hep tiny, 1 ranks", "hep tiny, 2 ranks"]


# ------------------------------------------------------------------------- what is not comparable


def changed(record, **fields):
    return dataclasses.replace(record, **fields)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (hep("kfac", 10, target=0.8), "hep: not comparable: target is 0.9 in a (hep-tiny-sgd"),
        (hep("kfac", 10, steps_per_epoch=2), "steps of an epoch is None in a"),
        (
            changed(hep("kfac", 10), plan=dataclasses.replace(plan("hep", "kfac"), size="small")),
            "size is tiny in a (hep-tiny-sgd-b8-r1-1) and small in a (hep-small-kfac-b8-r1-1)",
        ),
        (changed(hep("kfac", 10), metric="accuracy"), "metric is AUC in a"),
        (changed(hep("kfac", 10), data_hash="f00"), "its data are not the same in a"),
        (hep("sgd", 10, seed=2, epochs=3, batch_size=4), "sgd: two configurations of hep tiny"),
        (hep("sgd", 10, seed=2), "only one optimizer, sgd: nothing to compare it with"),
        (trial(plan("cosmoflow", "kfac"), [0.4]), "not run: sgd: cosmoflow tiny; kfac: hep tiny"),
    ],
)
def test_refused(other, message):
    with pytest.raises(InputError) as caught:
        compare({"a": results_of([hep("sgd", 10), other])})
    assert message in str(caught.value)


def test_refuses_to_pool_what_does_not_belong_together():
    one, other = results_of([hep("sgd", 10)]), results_of([hep("sgd", 20), hep("kfac", 10)])
    with pytest.raises(InputError, match="two trials with seed 1"):
        compare({"one": one, "other": other})
    moved = changed(hep("sgd", 20, seed=2), system={**benchmark_suite.SYSTEM, "host": "node2"})
    with pytest.raises(InputError, match="different machines in one and other; --by file"):
        compare({"one": one, "other": results_of([moved])})


def test_refuses_what_was_not_measured():
    def without(record):
        none = {"joules": None, "source": "unavailable", "detail": "no RAPL"}
        return changed(record, energy=none, energy_to_quality=None, cost_to_quality=None)

    made = results_of([without(hep("sgd", 10)), without(hep("kfac", 10))])
    with pytest.raises(InputError, match="energy is unavailable: no RAPL"):
        compare({"a": made}, measure="energy")
    with pytest.raises(InputError, match="no price was stated"):
        compare({"a": made}, measure="cost")


def test_without_any_target():
    made = results_of([trial(plan("hep", name, target=None), [0.5]) for name in ("sgd", "kfac")])
    with pytest.raises(InputError, match="a: no trial with a target has ended"):
        compare({"a": made})


def test_what_was_not_run_counts_as_missed_if_wanted():
    made = results_of([hep("sgd", 10), hep("kfac", 10), trial(plan("cosmoflow", "kfac"), [0.4])])
    found = compare({"a": made}, allow_missing=True)
    assert found.medians["sgd"] == {"hep tiny": 10.0, "cosmoflow tiny": math.inf}
    assert "Not run, counted as missed: sgd: cosmoflow tiny." in found.notes
    assert "not run" in comparison.as_tables(found)[1].rows[1]


def test_notes_say_what_else_differs():
    made = results_of([hep("sgd", 10), hep("kfac", 10, batch_size=16, epochs=1), failed(plan())])
    made = dataclasses.replace(made, records=made.records[:2])
    notes = compare({"a": made}).notes
    assert "hep tiny: examples of a step differ: sgd 8, kfac 16." in notes
    assert "cosmoflow tiny: 1 failed, not only missed: sgd." in compare({"a": suite()}).notes
    unfinished = dataclasses.replace(suite(), records=suite().records[:12])
    assert "a: 3 planned trials have not ended." in compare({"a": unfinished}).notes


# ------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return benchmark_suite.write(tmp_path_factory.mktemp("compare") / "suite", suite())


def test_prints_tables(directory, capsys):
    assert main(["compare", str(directory)]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("| kfac")]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *("kfac", "1.000", "2 of 2", "2 of 2", "2 of 2", "2 of 2")
    ]
    assert "20.00 (2.00x)" in out and "∞, 2 of 3 missed" in out


def test_prints_json(directory, capsys):
    assert main(["compare", str(directory), "--json", "--limit", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    sgd = found["contestants"]["sgd"]
    assert found["limit"] == 3.0
    assert sgd["medians"] == {"hep tiny": 20.0, "cosmoflow tiny": None}
    assert sgd["score"] == pytest.approx(0.25)  # half of the tasks from 2 to 3, of 1 to 3
    assert sgd["misses"] == {"hep tiny": 0, "cosmoflow tiny": 2}


def test_draws(directory, tmp_path, capsys):
    profile, bars = tmp_path / "profile.svg", tmp_path / "bars.png"
    arguments = ["compare", str(directory), "--plot", str(profile), "--bars", str(bars)]
    assert main(arguments) == 0
    first = profile.read_bytes()
    assert b"kfac, score 1.00" in first
    assert matplotlib.image.imread(bars).shape[0] > 300
    assert main(arguments) == 0
    assert profile.read_bytes() == first


def test_two_machines(directory, tmp_path, capsys):
    other = dataclasses.replace(suite(), suite={**suite().suite, "options": OPTIONS})
    benchmark_suite.write(tmp_path / "suite", other)
    given = [str(directory), str(tmp_path / "suite" / "results.json")]
    assert main(["compare", *given, "--by", "file"]) == 0
    out = capsys.readouterr().out
    # Both are called suite: their paths tell them apart.
    assert f"| {given[0]} " in out and f"| {given[1]} " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{suite}", "{suite}/results.json"], "one file is given twice"),
        (["{suite}", "--by", "files"], "--by: unknown contestants files (did you mean file?)"),
        (["{suite}", "--measure", "tim"], "--measure: unknown measure tim (did you mean time?)"),
        (["{suite}", "--limit", "1"], "--limit: expected a number above 1"),
        (["{suite}", "--plot", "a.xyz"], "--plot a.xyz: the suffix must be one of"),
        (["{suite}", "--plot", "absent/a.png"], "no directory absent"),
        (["absent"], "absent: No such file or directory"),
        ([], "the following arguments are required: RESULTS"),
    ],
)
def test_wrong_input(directory, capsys, arguments, message):
    assert main(["compare", *(a.format(suite=directory) for a in arguments)]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and not told.out
