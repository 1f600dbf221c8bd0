"""What `verify` finds: any number that follows from others, changed with all digests made anew."""

import contextlib
import dataclasses
import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.benchmark import comparison, record, report, results, verification
from models.hpcai500.command import main
from tests.models import benchmark_suite
from tests.models.benchmark_suite import events_of, failed, plan, results_of, suite, trial
from tfkfac.errors import InputError

VALID = json.dumps(results.to_json(suite()))

# What follows from nothing else in the file: the list in docs/hpcai500.md. Where a number is
# bounded by others, small changes pass and large ones do not.
FREE = {
    # texts and choices
    *("suite.options.cache", "suite.options.watts", "suite.targets.*"),
    *("records.*.error", "records.*.note", "records.*.energy.detail"),
    # measured
    *("records.*.history.*.training_loss", "records.*.history.*.training_quality"),
    *("records.*.peak_memory", "records.*.allreduce_share"),
    # bounded
    *("records.*.history.*.seconds", "records.*.history.*.quality", "records.*.history.*.joules"),
    "records.*.longest_step_seconds",
    # the same in all repetitions, where there are some
    "records.*.optimizer_flops_per_step",
    # of the machine, at that time
    *("records.*.system.load", "records.*.system.source.*", "records.*.system.environment"),
    "records.*.system.cores",
    # micro benchmarks: the FLOPs of a formula, and measurements
    *("micro.*.name", "micro.*.device", "micro.*.ranks", "micro.*.seconds.*", "micro.*.flops"),
    *("micro.*.traffic", "micro.*.images", "micro.*.peak_flops", "micro.*.bandwidth"),
    *("micro.*.system.load", "micro.*.system.source.*", "micro.*.system.environment"),
    *("micro.*.system.cores", "micro.*.system.threads"),
}


def leaves(value, path=()):
    """(path, value) of all that is neither a list nor an object with something in it."""
    if value and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in items:
            yield from leaves(entry, (*path, key))
    else:
        yield path, value


def kind(path):
    """A path without places in lists, and without names of settings, targets and source."""
    text = ".".join("*" if isinstance(key, int) else key for key in path)
    return re.sub(r"(targets|source)\.\w+$", r"\1.*", text)


def mutants(value):
    """Other values that may stand in its place."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, 1.001 * value + 1e-6, 3 * value + 1, -value - 1, str(value), None]
    if isinstance(value, str):
        return [f"{value}x", "", 1]
    return [1, 1.5, "x"]  # of None, {} and []


LEAVES = [(p, v) for p, v in leaves(json.loads(VALID)) if p[-1] != "digest"]
DERIVED = [(p, v) for p, v in LEAVES if kind(p) not in FREE]


def tampered(path, value):
    """The valid file's contents with another value, and with digests that are right again."""
    values = json.loads(VALID)
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    for entry in values["records"]:
        del entry["digest"]
        entry["digest"] = record.digest(entry)
    del values["digest"]
    values["digest"] = record.digest(values)
    return values


def problems(values):
    return list(verification.of_results(values))


# ------------------------------------------------------------------------------- single changes


def test_the_made_up_suite_is_in_order():
    assert problems(json.loads(VALID)) == []


def test_each_kind_of_number_that_follows_from_others_is_checked():
    first = {kind(path): (path, value) for path, value in reversed(DERIVED)}
    assert len(first) > 60
    for path, value in first.values():
        for other in mutants(value):
            assert problems(tampered(path, other)), (path, value, other)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_value_that_follows_from_others_is_refused(data):
    path, value = data.draw(st.sampled_from(DERIVED))
    other = data.draw(st.sampled_from(mutants(value)))
    assert problems(tampered(path, other)), (path, value, other)


def test_what_follows_from_nothing_is_as_documented():
    """Each kind in FREE can be changed without notice; the list is no longer than it has to be."""
    unseen: set[str] = set()
    for path, value in LEAVES:
        if kind(path) in FREE - unseen and any(
            not problems(tampered(path, other)) for other in mutants(value)
        ):
            unseen.add(kind(path))
    assert unseen == FREE


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_strange_values_end_in_an_error_of_one_line(data):
    path, value = data.draw(st.sampled_from(LEAVES))
    other = data.draw(st.sampled_from([*mutants(value), [], {}, 0, 10**400]))
    values = tampered(path, other)
    assert isinstance(problems(values), list)
    for use in (report.as_markdown, lambda made: comparison.compare({"a": made})):
        with contextlib.suppress(InputError):
            use(results.from_json(values, "results.json"))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_is_refused(directory, tmp_path_factory, data):
    text = (directory / "results.json").read_bytes()
    place = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != text[place]))
    file = tmp_path_factory.getbasetemp() / "changed.json"
    file.write_bytes(text[:place] + bytes([byte]) + text[place + 1 :])
    try:
        found = verification.of_path(file)
    except InputError:  # no JSON any more
        return
    assert found


@pytest.mark.parametrize("cut", [0, 1, 1000, -1])
def test_a_file_that_is_cut_short(directory, tmp_path, cut):
    file = tmp_path / "results.json"
    file.write_bytes((directory / "results.json").read_bytes()[:cut])
    if cut == -1:  # the last line's end
        assert verification.of_path(file)
        return
    with pytest.raises(InputError, match="not JSON, or cut short"):
        verification.of_path(file)


def test_digests_that_were_not_made_anew():
    values = json.loads(VALID)
    values["records"][1]["peak_memory"] += 1
    assert problems(values) == [
        "its digest is not that of its contents: it was changed or damaged",
        "record 2: its digest is not that of its contents",
    ]


# ------------------------------------------------------------------------ what each problem says


def of_changed(**fields):
    """Problems of one trial with other fields."""
    made = trial(plan("hep", "sgd"), [0.7, 0.92])
    return list(verification.of_record(dataclasses.replace(made, **fields)))


def test_each_problem_says_what_follows_from_the_rest():
    assert of_changed() == []
    assert "time_to_quality is 10.0, but 20.0 follows from the rest" in of_changed(
        time_to_quality=10.0
    )
    assert of_changed(vflops=4e9) == [
        "vflops is 4000000000.0, but 3200000000.0 follows from the rest"
    ]
    assert of_changed(status="missed") == ["status is missed, its history says reached"]
    assert of_changed(configuration_hash="f00") == ["configuration_hash is not that of its plan"]
    assert (
        of_changed(timed_steps=3)
        == [
            "2 steps of warm-up and 3 timed ones are not the 4 of its history",
            "3 steps take 7.5 s by samples_per_second, 5 to 7.5 s by step_seconds and "
            "longest_step_seconds",
        ][:1]
    )


def test_a_target_that_was_reached_later_than_claimed():
    made = trial(plan("hep", "sgd"), [0.7, 0.92])
    history = (dataclasses.replace(made.history[0], quality=0.91), made.history[1])
    assert list(verification.of_record(dataclasses.replace(made, history=history))) == [
        "time_to_quality is 20.0, but 10.0 follows from the rest",
        "went on after its target was reached in epoch 1",
        "energy_to_quality is 1000.0, but 500.0 follows from the rest",
    ]


def test_a_clock_that_goes_back():
    made = trial(plan("hep", "sgd"), [0.7, 0.92])
    history = (dataclasses.replace(made.history[0], seconds=25.0), made.history[1])
    found = list(verification.of_record(dataclasses.replace(made, history=history)))
    assert "history 2: the clock goes from 25.0 to 20.0 s" in found


def test_steps_that_take_longer_than_the_clock_ran():
    made = trial(plan("hep", "sgd"), [0.7, 0.92])
    slow = dataclasses.replace(
        made,
        samples_per_second=8 / 30,
        step_seconds=30.0,
        longest_step_seconds=30.0,
        flops_per_second=1e9 * 8 / 30,
        vflops=1e9 * 8 / 30,
    )
    assert list(verification.of_record(slow)) == [
        "2 steps take 60 s by samples_per_second, the clock 20.0 s"
    ]


def test_a_training_that_diverged_is_a_miss_that_says_why():
    made = trial(plan("hep", "sgd", epochs=4), [0.7, None])
    assert list(verification.of_record(made)) == [
        "missed after 2 of 4 epochs, and does not say why"
    ]
    assert not list(verification.of_record(dataclasses.replace(made, note="diverged: loss nan")))


def test_estimated_energy_is_power_times_time():
    made = trial(plan("hep", "sgd"), [0.7, 0.92])
    estimated = {"joules": 1000.0, "source": "estimated", "detail": "50 W x 100% load"}
    made = dataclasses.replace(made, energy=estimated)
    conditions = record.Conditions(price_per_hour=1.5, watts=50.0)
    assert not list(verification.of_record(made, conditions))
    other = dataclasses.replace(conditions, watts=60.0)
    assert "history 1: joules is 500.0, but 600.0 follows from the rest" in list(
        verification.of_record(made, other)
    )


def together(*records, drop=0):
    made = results_of(records)
    made = dataclasses.replace(made, records=made.records[drop:])
    return problems(json.loads(json.dumps(results.to_json(made))))


def test_a_suite_has_all_planned_trials_and_no_other():
    one, two = (trial(plan(seed=s, repetition=s), [0.95], start=100.0 * s) for s in (1, 2))
    assert together(one, two) == []
    assert together(one, two, drop=1) == [
        "hep-tiny-sgd-b8-r1-1: planned, but it has no record: the suite is not complete"
    ]
    made = results_of([one])
    extra = results.to_json(dataclasses.replace(made, records=(one, two)))
    assert problems(json.loads(json.dumps(extra))) == ["hep-tiny-sgd-b8-r1-2: was not planned"]
    twice = results.to_json(dataclasses.replace(made, records=(one, one)))
    assert "hep-tiny-sgd-b8-r1-1: has two records" in problems(json.loads(json.dumps(twice)))


def test_repetitions_have_seeds_of_their_own():
    one, two = (trial(plan(repetition=r), [0.95], start=100.0 * r) for r in (1, 2))
    assert together(one, two) == ["hep-tiny-sgd-b8-r1-2: has seed 1, as hep-tiny-sgd-b8-r1-1 has"]


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_trials_do_not_overlap(start):
    one = trial(plan(), [0.95])  # takes 10 s
    two = trial(plan(seed=2, repetition=2), [0.95], start=start)
    assert together(one, two) == [
        "hep-tiny-sgd-b8-r1-2: started before hep-tiny-sgd-b8-r1-1 had ended"
    ]


def test_trials_share_machine_and_data():
    one, two = (trial(plan(seed=s, repetition=s), [0.95], start=100.0 * s) for s in (1, 2))
    moved = dataclasses.replace(two, system={**two.system, "host": "node2"}, data_hash="f00")
    assert together(one, moved) == [
        "hep-tiny-sgd-b8-r1-2: data_hash is 'f00', in hep-tiny-sgd-b8-r1-1 'data of hep'",
        "hep-tiny-sgd-b8-r1-2: system.host is 'node2', in hep-tiny-sgd-b8-r1-1 'node1'",
    ]


def test_a_failed_trial_does_not_know_its_gpus():
    one = trial(plan(), [0.95])
    one = dataclasses.replace(one, system={**one.system, "gpus": ["H100"]}, peak_gpu_memory=2**30)
    assert together(one, failed(plan(seed=2, repetition=2))) == []


# ------------------------------------------------------------------------------- the directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return benchmark_suite.write(tmp_path_factory.mktemp("verify") / "suite", suite())


@pytest.fixture
def copy(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "suite")
    return tmp_path / "suite"


NAME = "cosmoflow-tiny-sgd-b8-r1-1"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("suite.json", '"epochs": 4', '"epochs": 5', "suite.json is not the suite of results.json"),
        (
            f"trials/{NAME}.json",
            '"seed": 1',
            '"seed": 9',
            f"{NAME}: trials/{NAME}.json is not its record in results.json",
        ),
        ("micro.json", '"CPU"', '"GPU"', "micro.json is not the micro benchmarks of results.json"),
        (
            f"trials/{NAME}.mllog",
            '"key": "seed", "value": 1',
            '"key": "seed", "value": 2',
            f"{NAME}: {NAME}.mllog: seed is [2], the record's 1",
        ),
        (
            f"trials/{NAME}.mllog",
            '"value": 0.6,',
            '"value": 0.61,',
            f"{NAME}: {NAME}.mllog: eval_accuracy is not the record's in epochs 3",
        ),
        (
            f"trials/{NAME}.mllog",
            '"success"',
            '"aborted"',
            f"{NAME}: {NAME}.mllog: run_stop is ['aborted'], the record's status reached",
        ),
        (
            f"trials/{NAME}.mllog",
            '"key": "run_start"',
            '"key": "other"',
            f"{NAME}: {NAME}.mllog: has no run_start",
        ),
    ],
)
def test_files_that_do_not_say_the_same(copy, file, old, new, message):
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    assert verification.of_path(copy) == [message]
    assert verification.of_path(copy / "results.json") == []


def test_files_that_are_missing(copy):
    for end in (".json", ".mllog"):
        (copy / "trials" / f"{NAME}{end}").unlink()
    (copy / "suite.json").unlink()
    assert [problem.split(":")[-1] for problem in verification.of_path(copy)] == [
        " No such file or directory",
        " No such file or directory",
        " No such file or directory",
    ]


def test_a_faster_clock_than_the_log_s():
    made = trial(plan("hep", "sgd"), [0.7, 0.92], pace=100.0)
    events = events_of(made)
    assert list(verification.of_log(made, events)) == []
    # The log: 3 s for the training quality lie between the epochs, which no clock may count twice.
    for claimed, told in ((90.0, "by the record 90.0 s"), (110.0, "by the record 110.0 s")):
        first = dataclasses.replace(made.history[0], seconds=claimed)
        faster = dataclasses.replace(made, history=(first, made.history[1]))
        found = list(verification.of_log(faster, events))
        assert found[0] == f"epoch 1 took 100.0 to 100.0 s, {told}"


def test_a_log_of_another_time():
    made = trial(plan("hep", "sgd"), [0.7, 0.92])
    later = dataclasses.replace(made, started="2026-01-02T03:05:05+00:00")
    assert list(verification.of_log(later, events_of(made))) == [
        "run_start is -60.0 s after the record's start"
    ]


# ---------------------------------------------------------------------------------- the command


def test_says_that_all_is_well(directory, capsys):
    assert main(["verify", str(directory)]) == 0
    assert capsys.readouterr().out == (
        f"{directory}: verified: trials 15 (10 reached, 1 missed, 1 failed, 3 no target), "
        "micro benchmarks 1\n"
    )


def test_refuses_with_a_line_for_each_problem(copy, capsys):
    file = copy / "results.json"
    file.write_text(file.read_text().replace('"time_to_quality": 40.0', '"time_to_quality": 30.0'))
    assert main(["verify", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"{file}: its digest is not that of its contents: it was changed or damaged",
        f"{file}: record 3: its digest is not that of its contents",
        f"{file}: {NAME}: time_to_quality is 30.0, but 40.0 follows from the rest",
        f"{file}: {NAME}: cost_to_quality is {1 / 60}, but 0.0125 follows from the rest",
    ]
    assert told.err == f"{file}: refused, problems: 4\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory"),
        ("", "not JSON, or cut short"),
        ("[" * 100_000, "not JSON, or cut short"),
        ("[]", "no results of hpcai500 run"),
        ('{"format": 1}', "no results of hpcai500 run"),
    ],
)
def test_what_cannot_be_verified(tmp_path, capsys, text, message):
    file = tmp_path / "results.json"
    if text is not None:
        file.write_text(text)
    assert main(["verify", str(file)]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and not told.out


@pytest.mark.parametrize("name", ["suite", "records", "micro", "format", "digest"])
@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [1], [{}], {"plans": [{}]}])
def test_contents_of_any_form_are_refused_and_no_more(directory, tmp_path, name, value):
    values = json.loads((directory / "results.json").read_text())
    values[name] = value
    if name != "digest":
        values["digest"] = record.digest({k: v for k, v in values.items() if k != "digest"})
    record.write(tmp_path / "results.json", values)
    found = verification.of_path(tmp_path)
    assert found or (name, value) == ("format", 1)
