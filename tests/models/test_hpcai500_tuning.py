"""Equal budgets: candidates, the choice among them, and the file of settings."""

import pytest

from models.benchmark import tuning
from models.benchmark.record import FAILED, Evaluation, Plan, Record
from tfkfac.errors import InputError

SGD = {"learning_rate": 0.02, "momentum": 0.9}
KFAC = {"learning_rate": 0.1, "damping": 0.01, "momentum": 0.9}


def test_candidates_lie_steps_of_the_square_root_of_ten_from_the_start():
    rates = [tuning.candidate("sgd", SGD, p)["learning_rate"] for p in (-2, -1, 0, 0.5, 1, 2)]
    assert rates == [0.002, 0.00632, 0.02, 0.0356, 0.0632, 0.2]
    assert tuning.candidate("adamw", SGD, 0) == SGD


@pytest.mark.parametrize("position", [-2, -1, 0, 0.25, 3])
def test_kfacs_other_constants_go_with_its_learning_rate(position):
    found = tuning.candidate("kfac", KFAC, position)
    factor = found["learning_rate"] / KFAC["learning_rate"]
    assert factor == pytest.approx(10 ** (position / 2), rel=0.01)
    assert found["damping"] / KFAC["damping"] == pytest.approx(factor, rel=0.01)
    assert found["kl_clip"] / 0.001 == pytest.approx(factor**2, rel=0.02)
    assert found["momentum"] == 0.9


def test_a_clip_that_is_off_stays_off():
    assert tuning.candidate("kfac", {**KFAC, "kl_clip": None}, 1)["kl_clip"] is None


def search(quality, count):
    """Positions of a search where a training comes to `quality(position)`."""
    tried: list[float] = []
    records: list[Record] = []
    for _ in range(count):
        tried.append(tuning.next_position(tried, records))
        records.append(result(tried[-1], [quality(tried[-1])]))
    return tried


def test_a_search_begins_with_the_start_and_its_neighbours():
    assert search(lambda p: 0.5, 3) == [0, 1, -1]


@pytest.mark.parametrize(
    ("quality", "positions"),
    [
        (lambda p: 0.5 + p / 100, [2, 3, 4]),  # ever better upwards
        (lambda p: 0.5 - p / 100, [-2, -3, -4]),
        (lambda p: 0.5 - abs(p) / 100, [0.5, -0.5, 0.25]),  # best at the start: between
        (lambda p: 0.5 - abs(p - 0.2) / 100, [0.5, -0.5, 0.25]),  # the wider gap first
        (lambda p: 0.5 - abs(p - 1.2) / 100, [2, 1.5, 0.5]),  # beyond, then either side
        (lambda p: 0.5 - abs(p - 2.2) / 100, [2, 3, 2.5]),
        (lambda p: None, [-2, -3, -4]),  # nothing but divergence: smaller
        (lambda p: None if p > -1 else 0.5, [-2, -1.5, -0.5]),
    ],
)
def test_a_search_goes_where_the_best_is(quality, positions):
    assert search(quality, 6)[3:] == positions


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
    assert tuning.at_an_end([middle, high, low])
    assert not tuning.at_an_end([low, result(4, [0.6]), high])
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
