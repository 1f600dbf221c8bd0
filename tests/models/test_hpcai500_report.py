"""Reports of a made-up suite, whose numbers are worked out by hand in benchmark_suite.py."""

import base64
import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from models.benchmark import report, results, tables
from models.benchmark.record import MISSED
from models.benchmark.summary import (
    Spread,
    configurations,
    outcomes,
    scaling,
    spread,
    to_quality,
)
from models.benchmark.tables import Table
from models.hpcai500.command import main
from tests.models import benchmark_suite
from tests.models.benchmark_suite import failed, plan, results_of, suite, trial
from tfkfac.errors import InputError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return benchmark_suite.write(tmp_path_factory.mktemp("report") / "suite", suite())


@pytest.fixture(scope="module")
def text():
    return report.as_markdown(suite())


def rows(text, caption):
    """The table under a caption, as dictionaries by column."""
    lines = text.split(f"*{caption}")[1].split("\n\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def row(text, caption, **wanted):
    (found,) = [r for r in rows(text, caption) if wanted.items() <= r.items()]
    return found


# ------------------------------------------------------------------------------------ results


def test_results_come_back_as_they_were_saved(directory):
    assert results.load(directory) == suite()
    assert results.load(directory / "results.json") == suite()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seed": 2', '"seed": 5', "its digest is not that of its contents"),
        ('"format": 1', '"format": 2', "has format 2; this version reads 1"),
        ('"records"', '"recrds"', "no results of hpcai500 run"),
        ("[", "", "not JSON, or cut short"),
    ],
)
def test_damaged_results(directory, tmp_path, old, new, message):
    file = tmp_path / "results.json"
    file.write_text((directory / "results.json").read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(message)):
        results.load(file)


def test_results_of_the_wrong_types(tmp_path):
    made = suite()
    seconds: Any = "20"
    wrong = dataclasses.replace(made.records[0], seconds=seconds)
    results.save(tmp_path, dataclasses.replace(made, records=(wrong,)))
    with pytest.raises(InputError, match=r"record 1: seconds is '20', not float"):
        results.load(tmp_path)


# ------------------------------------------------------------------------------------ summaries


def test_repetitions_are_one_configuration():
    groups = configurations(suite())
    assert [(g.plan.optimizer, g.planned, len(g.records)) for g in groups[:4]] == [
        ("sgd", 3, 3),
        ("kfac", 3, 3),
        ("sgd", 3, 3),
        ("kfac", 3, 3),
    ]
    assert outcomes(groups[2]) == "1 reached, 1 missed, 1 failed"


def test_misses_and_failures_took_for_ever():
    inf = float("inf")
    group = configurations(suite())[2]
    assert group.to_quality() == [40.0, inf, inf]
    assert spread(group.to_quality()) == Spread(inf, 40.0, inf)
    assert group.olympic_mean == inf
    assert to_quality(trial(plan(target=None), [0.9])) is None


def test_mean_without_the_extremes():
    records = [
        trial(plan(repetition=r, seed=r), [0.95], pace=pace)
        for r, pace in enumerate((1.0, 2.0, 4.0, 100.0), start=1)
    ]
    (group,) = configurations(results_of(records))
    assert group.olympic_mean == 3.0
    (two,) = configurations(results_of(records[:2]))
    assert two.olympic_mean is None


def test_trials_that_have_not_ended_are_counted():
    made = suite()
    (group, *_) = configurations(dataclasses.replace(made, records=made.records[:1]))
    assert outcomes(group) == "1 reached, 2 not run"


def test_scaling_from_throughput():
    # 8 examples in 2.5 s on one rank; 8 in 1.5625 s and 16 in 3.125 s on two.
    points = scaling(configurations(suite()))
    found = [(p.kind, p.configuration.plan.ranks, p.speedup, p.efficiency) for p in points]
    assert found == [
        ("strong", 1, 1.0, 1.0),
        ("strong", 2, pytest.approx(1.6), pytest.approx(0.8)),
        ("weak", 1, 1.0, 1.0),
        ("weak", 2, pytest.approx(1.6), pytest.approx(0.8)),
    ]


# ------------------------------------------------------------------------------------- Markdown


def test_overview(text):
    assert "- 15 trials: 10 reached, 1 missed, 1 failed, 3 no target.\n" in text
    assert "- hep tiny: kfac reached AUC >= 0.9 first, in 10.00 s (median); sgd 2.00x.\n" in text
    assert "first, in 30.00 s (median); sgd missed.\n" in text
    assert "Misses and failures count as infinite times" in text


def test_time_to_quality(text):
    caption = "Wall-clock time to quality"
    sgd = row(text, caption, workload="cosmoflow tiny", optimizer="sgd")
    assert sgd["trials"] == "1 reached, 1 missed, 1 failed"
    assert sgd["median s"] == sgd["MLPerf s"] == sgd["epochs"] == sgd["steps"] == "∞"
    assert sgd["range s"] == "40.00 to ∞"
    kfac = row(text, caption, workload="cosmoflow tiny", optimizer="kfac")
    assert (kfac["target"], kfac["median s"], kfac["MLPerf s"]) == ("MAE <= 0.5", "30.00", "30.00")
    assert (kfac["epochs"], kfac["steps"]) == ("2", "4")


def test_qualities(text):
    sgd = row(text, "Qualities", workload="cosmoflow tiny", optimizer="sgd")
    assert (sgd["best test"], sgd["training then"], sgd["at epoch"]) == ("0.5000", "0.5100", "4")
    assert (sgd["median of trials' best"], sgd["range"]) == ("0.5250", "0.5000 to 0.5500")


def test_speed(text):
    sgd = row(text, "Speed of", workload="cosmoflow tiny", optimizer="sgd")
    assert (sgd["examples/s"], sgd["step"], sgd["FLOPS"]) == ("3.200", "2,500 ms", "3.20 GFLOPS")
    # Of the two trials that ended, 3.2 and 3.2 (0.5 / 0.55)^5 GFLOPS.
    assert sgd["VFLOPS"] == "2.59 GFLOPS"
    assert (sgd["memory"], sgd["all-reduce"]) == ("1.00 GiB", "-")
    two = row(text, "Speed of", ranks="2", batch="16")
    assert two["all-reduce"] == "25.0 %"
    counts = row(text, "What is counted", workload="cosmoflow tiny", optimizer="kfac")
    assert (counts["VFLOPS n"], counts["cap"], counts["parameters"]) == ("5", "1", "1,234")


def test_energy_and_cost(text):
    kfac = row(text, "Energy and cost", workload="cosmoflow tiny", optimizer="kfac")
    assert (kfac["energy"], kfac["energy to quality"]) == ("1.50 kJ", "1.50 kJ")
    assert (kfac["power"], kfac["source"]) == ("50.0 W", "measured: package-0")
    # 30 s of 1.5 USD an hour.
    assert (kfac["price of an hour"], kfac["cost to quality"]) == ("1.5 USD", "0.01250 USD")
    sgd = row(text, "Energy and cost", workload="cosmoflow tiny", optimizer="sgd")
    assert (sgd["energy to quality"], sgd["cost to quality"]) == ("∞ J", "∞ USD")


def test_energy_that_is_unavailable_says_why():
    made = trial(plan(), [0.95])
    none = {"joules": None, "source": "unavailable", "detail": "no RAPL"}
    history = tuple(dataclasses.replace(e, joules=None) for e in made.history)
    made = dataclasses.replace(made, energy=none, energy_to_quality=None, history=history)
    text = report.as_markdown(results_of([made]))
    entry = row(text, "Energy and cost", workload="hep tiny")
    assert entry["source"] == "unavailable: no RAPL"
    assert entry["energy"] == entry["energy to quality"] == entry["power"] == "-"


def test_scaling_and_micro_benchmarks(text):
    two = row(text, "Scaling by throughput", scaling="strong", ranks="2")
    assert (two["speedup"], two["efficiency"]) == ("1.60", "80.0 %")
    micro = row(text, "Micro benchmarks", operation="convolution 2-D forward")
    # 1 GFLOP and 32 images in a median of 10 ms; the peak of 200 GFLOPS is the roofline.
    assert (micro["FLOPS"], micro["images/s"]) == ("100 GFLOPS", "3,200")
    assert (micro["roofline"], micro["share of it"]) == ("200 GFLOPS", "50.0 %")


def test_what_it_was_measured_on(text):
    assert row(text, "Targets", workload="hep tiny", target="AUC >= 0.9")["how it was set"] == (
        "the workload's own"
    )
    assert row(text, "Hardware", what="source: commit")["value"] == "0123abcd"
    assert row(text, "Hardware", what="versions: keras")["value"] == "3.15.1"
    last = row(text, "All trials", trial="cosmoflow-tiny-sgd-b8-r1-3")
    assert (last["status"], last["seed"], last["remark"]) == ("failed", "3", "events.h5: cut short")
    first = row(text, "All trials", trial="hep-tiny-sgd-b8-r1-1")
    assert first["configuration"] == suite().records[0].configuration_hash[:12]


def test_a_suite_that_still_runs():
    made = suite()
    text = report.as_markdown(dataclasses.replace(made, records=made.records[:3]))
    assert "The suite is not complete: 12 planned trials have not ended." in text
    # K-FAC has not seen cosmoflow yet, so that there are no scores.
    assert "None: not run: kfac: cosmoflow tiny" in text


def test_trials_that_all_failed_make_a_report():
    made = results_of([failed(plan()), failed(plan(optimizer="kfac"))])
    assert "2 trials: 2 failed." in report.as_markdown(made)
    assert report.as_page(made).count("<figure>") == 3


def test_nothing_to_report():
    with pytest.raises(InputError, match="nothing to report"):
        report.as_markdown(dataclasses.replace(suite(), records=(), micro=()))


def test_rows_have_a_cell_for_each_column():
    with pytest.raises(ValueError, match="1 cells, 2 columns"):
        Table("Speed", ["of", ">FLOPS"], [["a"]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (999.96, "1,000"), (-12.345, "-12.35"), (5e-5, "5.000e-05"), (0.1, "0.1000")],
)
def test_numbers_for_people(value, shown):
    assert tables.number(value) == shown


# ----------------------------------------------------------------------------------------- HTML


class Page(HTMLParser):
    """Elements by name, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture(scope="module")
def page():
    return report.as_page(suite())


def test_the_page_needs_nothing_else(page):
    found = Page(page)
    assert not found.open
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in found.found)
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in found.all("img"))
    assert all(link["href"].startswith("#section-") for link in found.all("a"))
    ids = [attrs["id"] for _, attrs in found.found if "id" in attrs]
    assert {link["href"][1:] for link in found.all("a")} == set(ids)
    assert "url(" not in page and "@import" not in page


def test_the_page_is_accessible(page):
    found = Page(page)
    assert found.all("html") == [{"lang": "en"}]
    # Bars, curves of two workloads, the profile, scaling.
    assert len(found.all("img")) == len(found.all("figcaption")) == 5
    alternatives = [image["alt"] for image in found.all("img")]
    assert "kfac reached AUC >= 0.9 first, in 10.00 s" in alternatives[0]
    assert alternatives[1].startswith("Learning curves of hep tiny, AUC >= 0.9: sgd best 0.9200")
    assert alternatives[3] == "Performance profile. Scores: kfac 1.00, sgd 0.33."
    assert len(found.all("table")) == len(found.all("caption")) == 14
    assert all(head["scope"] in ("col", "row") for head in found.all("th"))


def test_pictures_show_the_suite(page):
    pictures = [
        base64.b64decode(data).decode() for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    ]
    assert all(picture.startswith("<?xml") and "<svg" in picture for picture in pictures)
    # Texts are drawn as shapes, after a comment with their words.
    words = [re.findall("<!-- (.*?) -->", picture) for picture in pictures]
    assert {"sgd", "kfac", "missed", "20", "10", "30"} <= set(words[0])
    assert "target 0.9" in words[1] and "target 0.5" in words[2]
    assert "kfac, score 1.00" in words[3]
    assert "strong scaling" in words[4] and "ideal" in words[4]


def test_the_same_results_give_the_same_bytes(page, text):
    assert report.as_page(suite()) == page
    assert report.as_markdown(suite()) == text


def test_text_of_results_is_no_markup():
    made = suite()
    evil = dataclasses.replace(
        failed(plan(optimizer="kfac")), error='<script>alert("|")</script>\nmore'
    )
    made = dataclasses.replace(made, records=(*made.records[:1], evil))
    assert "<script" not in report.as_page(made)
    assert '| <script>alert("\\|")</script> more |' in report.as_markdown(made)


def test_a_diverged_trial_does_not_hide_the_others():
    from models.benchmark import figures

    good = trial(plan(epochs=20, target=None), [0.5 + 0.01 * n for n in range(20)])
    wild = trial(plan(epochs=20, target=None, seed=2, repetition=2), [0.5, 1e6, 0.5])
    groups = configurations(results_of([good, wild]))
    (axes,) = figures.learning_curves(groups).axes
    assert axes.get_ylim()[1] < 1
    assert axes.get_title(loc="right") == "1 points lie outside"


def test_a_miss_is_a_hatched_bar():
    from models.benchmark import comparison, figures

    axes: Any = figures.times_to_quality(comparison.compare({"a": suite()})).axes
    hep, cosmoflow = axes
    bars = {bar.get_y() + bar.get_height() / 2: bar for bar in cosmoflow.patches}
    assert [bars[place].get_hatch() for place in (0.0, 1.0)] == ["////", None]
    assert [bar.get_width() for bar in hep.patches] == [20.0, 10.0]
    assert MISSED in [text.get_text() for text in cosmoflow.texts]


# ---------------------------------------------------------------------------------- the command


def test_prints_markdown(directory, capsys, text):
    assert main(["report", str(directory)]) == 0
    assert capsys.readouterr().out == text


def test_writes_files(directory, tmp_path, capsys, text, page):
    assert main(["report", str(directory / "results.json"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.md"]
    assert capsys.readouterr().out.count("wrote ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "no results.json in it"),
        (["{empty}/absent"], "No such file or directory"),
        (["{suite}/suite.json"], "no results of hpcai500 run"),
        (["{suite}", "--out", "report.pdf"], "--out report.pdf: expected a name in .md or .html"),
        (["{suite}", "--out", "absent/report.md"], "no directory absent"),
        (["{suite}", "--outt", "a.md"], "unknown option --outt (did you mean --out?)"),
    ],
)
def test_wrong_input(directory, tmp_path, capsys, arguments, message):
    filled = [a.format(empty=tmp_path, suite=directory) for a in arguments]
    assert main(["report", *filled]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and not told.out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["report", "compare", "verify"])
def test_starts_without_tensorflow(directory, command):
    program = (
        "import sys\n"
        "from models.hpcai500.command import main\n"
        f"code = main([{command!r}, {str(directory)!r}])\n"
        "heavy = {'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away(directory):
    process = subprocess.Popen(
        [sys.executable, "-m", "models.hpcai500.command", "report", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
