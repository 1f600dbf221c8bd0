"""Equal budgets: candidates, the choice among them, and the file of settings."""

import pytest

from models.benchmark import tuning
from models.benchmark.record import FAILED, Evaluation, Plan, Record
from tfkfac.errors import InputError

SGD = {"learning_rate": 0.02, "momentum": 0.9}
KFAC = {"learning_rate": 0.1, "damping": 0.01, "momentum": 0.9}


def test_learning_rates_take_steps_of_equal_ratio():
    found = tuning.candidates("sgd", SGD, 5)
    assert [c["learning_rate"] for c in found] == [0.002, 0.00632, 0.02, 0.0632, 0.2]
    assert all(c["momentum"] == 0.9 for c in found)
    few = tuning.candidates("sgd", SGD, 3)
    assert [c["learning_rate"] for c in few] == [0.00632, 0.02, 0.0632]
    many = [c["learning_rate"] for c in tuning.candidates("sgd", SGD, 9)]
    assert (many[0], many[4], many[-1]) == (0.002, 0.02, 0.2)
    assert tuning.candidates("adamw", SGD, 1) == [SGD]


@pytest.mark.parametrize("count", range(1, 13))
def test_kfac_gets_as_many_candidates_and_no_more(count):
    found = tuning.candidates("kfac", KFAC, count)
    assert len(found) == count == len(tuning.candidates("sgd", SGD, count))
    dampings = sorted(c["damping"] for c in found)
    assert len(set(dampings)) == count  # each of its steps once
    assert (KFAC["learning_rate"], KFAC["damping"]) in [
        (c["learning_rate"], c["damping"]) for c in found
    ] or count % 2 == 0
    for candidate in found:
        factor = candidate["learning_rate"] / KFAC["learning_rate"]
        assert candidate["kl_clip"] == pytest.approx(0.001 * factor**2, rel=0.02)
    if count < 5:
        assert [c["damping"] for c in found] == dampings
    if count >= 5:  # neither rises with the other
        pairs = sorted((c["learning_rate"], c["damping"]) for c in found)
        assert [d for _, d in pairs] not in (dampings, dampings[::-1])


def test_a_clip_that_is_off_stays_off():
    assert tuning.candidates("kfac", {**KFAC, "kl_clip": None}, 3)[0]["kl_clip"] is None


def result(number, qualities, reached=None, status="missed", optimizer="sgd"):
    """An epoch has ten steps, and takes a second."""
    history = tuple(
        Evaluation(epoch, 10 * epoch, float(epoch), quality, 0.1)
        for epoch, quality in enumerate(qualities, start=1)
    )
    settings = {"learning_rate": float(number), "momentum": 0.9}
    plan = Plan("hep", "tiny", optimizer, settings, 32, 3, seed=tuning.SEED, target=0.8)
    return Record(
        plan,
        "reached" if reached else status,
        "AUC",
        True,
        history,
        time_to_quality=reached,
        seconds=float(len(history)),
    )


def test_the_first_to_the_target_is_chosen():
    slow, fast, miss = (
        result(1, [0.5, 0.6, 0.9], 3.0),
        result(2, [0.5, 0.81], 2.0),
        result(3, [0.7, 0.7, 0.7]),
    )
    assert tuning.choose([slow, fast, miss]) == 1
    better = result(4, [0.5, 0.85], 2.0)
    assert tuning.choose([slow, fast, better]) == 2  # in as many steps


def test_without_a_target_reached_the_best_is_chosen():
    records = [result(1, [0.5, 0.79]), result(2, [0.6]), result(3, [], status=FAILED)]
    assert tuning.choose(records) == 0
    with pytest.raises(InputError, match="none of sgd's candidates came to a quality"):
        tuning.choose([records[2], result(4, [None])])


def test_the_best_at_an_end_of_several():
    low, middle, high = result(1, [0.5]), result(2, [0.6]), result(3, [0.7])
    assert tuning.at_an_end([low, middle, high])
    assert tuning.at_an_end([high, middle, low])
    assert not tuning.at_an_end([low, high, middle])
    assert not tuning.at_an_end([high])


def test_settings_are_written_and_read(tmp_path):
    file = tmp_path / "settings.yaml"
    found = {
        "hep": {
            "sgd": [result(1, [0.5]), result(2, [0.9], 1.0)],
            "adamw": [result(3, [0.5], optimizer="adamw")],
        }
    }
    found["hep"]["adamw"][0].plan.settings.pop("momentum")
    tuning.write(file, "tiny", 1000, found)
    read = tuning.read(file)
    assert read.settings == {
        "hep": {"sgd": {"learning_rate": 2.0, "momentum": 0.9}, "adamw": {"learning_rate": 3.0}}
    }
    read.check("tiny", range(1, 4))
    with pytest.raises(InputError, match="settings.yaml: was tuned for size tiny, not small"):
        read.check("small", [1])
    with pytest.raises(InputError, match="was tuned with seed 1000; choose another --seed"):
        read.check("tiny", [999, 1000])


def test_settings_by_hand(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("settings:\n  hep:\n    kfac: {learning_rate: 1e-1, kl_clip: null}\n")
    assert tuning.read(file).settings == {"hep": {"kfac": {"learning_rate": 0.1, "kl_clip": None}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings:\n  hepp: {}\n", "mine.yaml:2: unknown workload hepp"),
        ("settings:\n  hep:\n    sdg: {}\n", "unknown optimizer sdg .did you mean sgd"),
        (
            "settings:\n  hep:\n    sgd:\n      learning_rate: 1\n      momentom: 1\n",
            "mine.yaml:3: unknown setting of sgd momentom .did you mean momentum",
        ),
        ("hep: {}\n", "mine.yaml:1: expected settings, not hep"),
        ("size: tiny\n", "mine.yaml: no settings in it"),
        ("settings: [1\n", "mine.yaml:2: no valid YAML"),
    ],
)
def test_wrong_settings_files(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        tuning.read(file)
    with pytest.raises(InputError, match="--settings: no file"):
        tuning.read(tmp_path / "none.yaml")
