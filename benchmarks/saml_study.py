"""SAML beside maximum likelihood and scheduled sampling on real text: BLEU by objective and beam.

    python benchmarks/saml_study.py --train DATA/train --valid DATA/val --test DATA/test_2016_flickr

All begin with the same training by maximum likelihood, one for each seed, at a constant learning
rate. What follows is the same number of updates for every objective, in which the learning rate
falls to nothing along a cosine. The one constant of each was chosen on the validation text, out of
as many values, by shorter trainings of the same kind: label smoothing of maximum likelihood; the
probability with which scheduled sampling still reads the reference in its last update; the weight w
of SAML. Maximum likelihood also trains longer, for as much processor time as SAML took. Variants of
SAML (`--variant`) are tried out by one of the shorter trainings each; the best of them trains as
long as the others, with all seeds. The checkpoint of best validation BLEU of each training
translates the test text with every beam.

Each training is a call of `nmt-train` in a process of its own, `--jobs` at a time. One that is
complete is skipped, one that was interrupted is resumed, so the study can be stopped and started
again at any time; `--report-only` reports what is complete. Arguments that are not the study's own
go to every training (`--dropout 0.3 --batch-tokens 1024`).

Results are in `--out`: saml_study.csv (a line for each training and beam), saml_study_tuning.csv (a
line for each of the shorter ones), saml_study.md (means and spread over seeds, p-values of the
paired bootstrap against maximum likelihood with the same seed, cost) and saml_study.png (BLEU
against the beam and against time).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nmt.corpus import read_lines
from nmt.metrics import compare, scores
from nmt.model_directory import ModelDirectory

BASELINE = "mle"
LONGER = "mle, longer"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """An objective and the values that its constant may have."""

    name: str
    constant: str
    values: tuple[float, ...]

    def options(self, value: float, updates: int) -> list[str]:
        """Those of nmt-train."""
        if self.constant == "last_probability":
            k = inverse_sigmoid_constant(value, updates)
            return ["--objective", self.name, "--sampling-constant", f"{k:.6g}"]
        flag = f"--{self.constant.replace('_', '-')}"
        return ["--objective", self.name, flag, f"{value:g}"]


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(BASELINE, "label_smoothing", (0.0, 0.05, 0.1)),
        Contestant("scheduled-sampling", "last_probability", (0.98, 0.9, 0.75)),
        Contestant("differentiable-scheduled-sampling", "last_probability", (0.98, 0.9, 0.75)),
        Contestant("saml", "saml_weight", (0.1, 0.25, 0.5)),
        Contestant("saml-hard", "saml_weight", (0.1, 0.25, 0.5)),
    )
}


def inverse_sigmoid_constant(probability: float, number: int) -> float:
    """The k for which k / (k + exp(i / k)) is a probability, by bisection; it grows with k."""
    low, high = 1.0, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        # k / (k + exp(i / k)) < p is log k - i / k < log(p / (1 - p)).
        logit = math.log(middle) - number / middle
        low, high = (
            (middle, high) if logit < math.log(probability / (1 - probability)) else (low, middle)
        )
    return high


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Args:
        directory: of the model.
        updates: of the training.
        seed: of everything.
        options: of nmt-train, beside those of all trainings.
        contestant, value: what it stands for; no value for variants.
    """

    directory: Path
    updates: int
    seed: int
    options: tuple[str, ...]
    contestant: str
    value: float | None = None

    def log(self) -> list[dict[str, str]]:
        """A row for each validation."""
        path = ModelDirectory(self.directory).log
        if not path.exists():
            return []
        with path.open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def complete(self) -> bool:
        """Whether it has come to its end."""
        rows = self.log()
        return bool(rows) and int(rows[-1]["update"]) >= self.updates

    @property
    def best(self) -> float:
        """The best validation BLEU."""
        return max(float(row["bleu"]) for row in self.log())

    @property
    def seconds(self) -> float:
        """Processor seconds of its updates."""
        return float(self.log()[-1]["cpu_seconds"])

    def outcome(self) -> dict[str, Any]:
        """What a row of results says of the training itself."""
        return {
            "objective": self.contestant,
            "constant": self.value,
            "seed": self.seed,
            "updates": self.updates,
            "validation_bleu": round(self.best, 3),
            "cpu_seconds": round(self.seconds, 1),
            "cpu_seconds_per_update": round(self.seconds / self.updates, 4),
        }

    def train(self, shared: Sequence[str]) -> None:
        """Trains, or goes on with it."""
        if self.complete:
            return
        print(f"== {self.directory}", flush=True)
        command = [sys.executable, "-m", "nmt.train", "--out", str(self.directory)]
        if ModelDirectory(self.directory).last.exists():
            command += ["--resume"]
        else:
            command += [*shared, *self.options, "--overwrite", "--patience", "null"]
            command += ["--updates", str(self.updates), "--seed", str(self.seed)]
        if code := subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{self.directory}: nmt-train ended with exit code {code}")

    def translation(self, beam: int) -> Path:
        """The translated test text."""
        return self.directory / f"test.beam{beam}.txt"

    def translate(self, source: Path, beam: int) -> None:
        """Translates the test text, unless it is there."""
        output = self.translation(beam)
        if output.exists():
            return
        command = [sys.executable, "-m", "nmt.translate", "--model", str(self.directory)]
        command += ["--input", str(source), "--output", str(output), "--beam", str(beam)]
        if code := subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{output}: nmt-translate ended with exit code {code}")


class Study:
    """All trainings of a study, in their order.

    Args:
        options: of the command line.
        shared: options of every training.
    """

    def __init__(self, options: argparse.Namespace, shared: Sequence[str]) -> None:
        self._options = options
        self._extra, self._variants = named(options.extra), named(options.variant)
        sides = options.languages
        self.source, self.reference = (text_file(options.test, side) for side in sides)
        self._shared = ["--config", options.config, "--schedule", "cosine", *shared]
        for name, prefix in (("", options.train), ("validation-", options.valid)):
            for flag, side in zip(("source", "target"), sides, strict=True):
                self._shared += [f"--{name}{flag}", str(text_file(prefix, side))]
        self._shared += ["--validate-every", str(options.validate_every)]
        self._shared += ["--checkpoint-every", str(options.validate_every)]
        self.contestants = [
            item for item in CONTESTANTS.values() if item.name in options.objectives
        ]
        self._smoothing: float | None = None
        self.short: list[Run] = []  # the trainings that chose constants and variant

    def train(self, runs: Iterable[Run]) -> list[Run]:
        """Trains, unless nothing but the report is wanted; those that are complete."""
        runs = list(runs)
        if not self._options.report_only:
            at_a_time(self._options.jobs, [lambda run=run: run.train(self._shared) for run in runs])
        return [run for run in runs if run.complete]

    def beginning(self, seed: int) -> Run:
        """What all trainings with a seed begin with."""
        directory = self._options.runs / f"beginning-seed{seed}"
        options = ("--average", "0", "--schedule", "constant")
        return Run(directory, self._options.pretraining, seed, options, "beginning")

    def run(
        self,
        contestant: Contestant,
        value: float,
        seed: int,
        updates: int,
        stage: str,
        name: str = "",
        extra: str = "",
    ) -> Run:
        """A training of a contestant."""
        options = [*contestant.options(value, updates), "--average", "0"]
        if contestant.name != BASELINE and self._smoothing is not None:
            options += ["--label-smoothing", f"{self._smoothing:g}"]
        options += shlex.split(self._extra.get(contestant.name, "")) + shlex.split(extra)
        if self._options.pretraining:
            options += ["--init-from", str(self.beginning(seed).directory)]
        name = name or contestant.name
        # What differs has a directory of its own, so that nothing old is taken for it.
        folder = f"{name.replace(', ', '-').replace(' ', '-')}-{value:g}-{updates}-seed{seed}"
        directory = self._options.runs / stage / folder
        # A variant may have set another value.
        return Run(directory, updates, seed, tuple(options), name, None if extra else value)

    def tune(self, contestants: Sequence[Contestant]) -> dict[str, float]:
        """The constants of best validation BLEU, of those whose trainings are all complete."""
        runs = {
            contestant.name: [self._short(contestant, value) for value in contestant.values]
            for contestant in contestants
        }
        self.short += self.train(run for some in runs.values() for run in some)
        tuned = {}
        for contestant in contestants:
            some = runs[contestant.name]
            if not all(run.complete for run in some):
                continue
            best = max(some, key=lambda run: run.best)
            found = ", ".join(f"{run.value:g}: {run.best:.2f}" for run in some)
            print(f"{contestant.name}: {contestant.constant} {best.value:g} (BLEU of {found})")
            assert best.value is not None
            tuned[contestant.name] = best.value
        return tuned

    def best_variant(self, value: float) -> str | None:
        """The variant of SAML of best validation BLEU; None without any, or before all are done."""
        runs = {
            name: self._short(CONTESTANTS["saml"], value, name, options)
            for name, options in self._variants.items()
        }
        self.short += self.train(runs.values())
        if not runs or not all(run.complete for run in runs.values()):
            return None
        print(", ".join(f"{run.contestant}: {run.best:.2f}" for run in runs.values()))
        return max(runs, key=lambda name: runs[name].best)

    def _short(
        self, contestant: Contestant, value: float, variant: str = "", extra: str = ""
    ) -> Run:
        seed, updates = self._options.seeds[0], self._options.tuning_updates
        name = f"{contestant.name}, {variant}" if variant else ""
        return self.run(contestant, value, seed, updates, "tuning", name, extra)

    def finals(self) -> list[Run]:
        """The trainings that are compared; those that are complete."""
        options = self._options
        if options.pretraining:
            self.train(self.beginning(seed) for seed in options.seeds)
        baseline = CONTESTANTS[BASELINE]
        tuned = self.tune([baseline])
        self._smoothing = tuned.get(BASELINE)
        if self._smoothing is None:
            return []
        tuned |= self.tune([item for item in self.contestants if item is not baseline])
        runs = []
        for seed in options.seeds:
            for contestant in self.contestants:
                few = contestant.name not in (BASELINE, "saml")
                if contestant.name not in tuned:
                    continue
                if few and seed not in options.seeds[: options.fewer_seeds]:
                    continue
                value = tuned[contestant.name]
                runs.append(self.run(contestant, value, seed, options.updates, "final"))
        if "saml" in tuned and (variant := self.best_variant(tuned["saml"])):
            name, extra = f"saml, {variant}", self._variants[variant]
            runs += [
                self.run(
                    CONTESTANTS["saml"], tuned["saml"], seed, options.updates, "final", name, extra
                )
                for seed in options.seeds
            ]
        done = self.train(runs)
        ratio = cost_ratio(done)
        if ratio is not None:
            # The ratio is rounded, so that the study finds its trainings again.
            updates = round(options.updates * ratio / 100) * 100 or options.updates
            done += self.train(
                self.run(baseline, tuned[BASELINE], seed, updates, "final", LONGER)
                for seed in options.seeds
            )
        return done

    def translate(self, runs: Sequence[Run]) -> None:
        """Translates the test text with every beam."""
        tasks = [
            lambda run=run, beam=beam: run.translate(self.source, beam)
            for run in runs
            for beam in self._options.beams
        ]
        at_a_time(self._options.jobs, tasks)


def at_a_time(jobs: int, tasks: Sequence[Callable[[], None]]) -> None:
    """Does so many tasks at a time; those not begun are left out once one has failed."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def cost_ratio(runs: Sequence[Run]) -> float | None:
    """Processor time of SAML over that of maximum likelihood with the first seed both have.

    Later trainings do not change it.
    """
    for run in runs:
        for other in runs:
            names = run.contestant, other.contestant
            if names == ("saml", BASELINE) and run.seed == other.seed:
                return run.seconds / other.seconds
    return None


def named(items: Sequence[str]) -> dict[str, str]:
    """NAME=TEXT by name."""
    return dict(item.split("=", 1) for item in items)


def text_file(prefix: str, language: str) -> Path:
    """PREFIX.LANGUAGE, compressed or not."""
    for path in (Path(f"{prefix}.{language}"), Path(f"{prefix}.{language}.gz")):
        if path.is_file():
            return path
    raise SystemExit(f"saml_study: {prefix}.{language}: no such file, with or without .gz")


def results(runs: Sequence[Run], reference: list[str], beams: Sequence[int]) -> list[dict]:
    """A row for each training and beam."""
    baselines = {run.seed: run for run in runs if run.contestant == BASELINE}
    rows = []
    for run in runs:
        for beam in beams:
            if not run.translation(beam).exists():
                continue
            text = list(read_lines(run.translation(beam), 10**6))
            bleu, chrf = scores(text, [reference])
            p_value: float | str = ""
            baseline = baselines.get(run.seed)
            if baseline not in (None, run) and baseline.translation(beam).exists():
                other = list(read_lines(baseline.translation(beam), 10**6))
                p_value = compare([other, text], [reference], ("bleu",))[1][0].p_value or 0.0
            rows.append(
                run.outcome()
                | {
                    "beam": beam,
                    "bleu": round(bleu.value, 3),
                    "chrf": round(chrf.value, 3),
                    "p_value": p_value if p_value == "" else round(p_value, 4),
                    "signature": bleu.signature,
                }
            )
    return rows


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A line for each row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: Sequence[dict[str, Any]], beams: Sequence[int]) -> str:
    """The table in Markdown: mean ± standard deviation over seeds (p-values)."""
    names = list(dict.fromkeys(row["objective"] for row in rows))
    costs = {
        name: statistics.mean(r["cpu_seconds_per_update"] for r in rows if r["objective"] == name)
        for name in names
    }
    header = ["objective", "constant", "updates", "seeds", "cost"]
    header += [f"beam {beam}" for beam in beams]
    lines = [header, ["---"] * len(header)]
    for name in names:
        own = [row for row in rows if row["objective"] == name]
        cost = costs[name] / costs[BASELINE] if BASELINE in costs else math.nan
        seeds = sorted({row["seed"] for row in own})
        constant = "" if own[0]["constant"] is None else f"{own[0]['constant']:g}"
        cells = [name, constant, str(own[0]["updates"]), str(len(seeds))]
        cells.append(f"{cost:.2f}")
        for beam in beams:
            here = [row for row in own if row["beam"] == beam]
            values = [row["bleu"] for row in here]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            p_values = ", ".join(f"{r['p_value']:.3f}" for r in here if r["p_value"] != "")
            mean = f"{statistics.mean(values):.2f}" if values else ""
            cells.append(mean + spread + (f" (p {p_values})" if p_values else ""))
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"{table}\n\nBLEU, mean ± standard deviation over seeds; in brackets, for each seed, p of "
        "the paired bootstrap against mle with the same seed. Cost is processor time of an update "
        f"over that of mle.\n\nBLEU: {rows[0]['signature']}\n"
    )


def plot(rows: Sequence[dict[str, Any]], runs: Sequence[Run], path: Path) -> None:
    """Test BLEU against the beam, means and each seed as a dot; validation BLEU against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    beam_axes, time_axes = figure.subplots(1, 2)
    for name in dict.fromkeys(row["objective"] for row in rows):
        own = [row for row in rows if row["objective"] == name]
        beams = sorted({row["beam"] for row in own})
        means = [statistics.mean(r["bleu"] for r in own if r["beam"] == beam) for beam in beams]
        (line,) = beam_axes.plot(range(len(beams)), means, "o-", label=name)
        beam_axes.plot(
            [beams.index(row["beam"]) for row in own],
            [row["bleu"] for row in own],
            ".",
            color=line.get_color(),
            alpha=0.4,
        )
        beam_axes.set_xticks(range(len(beams)), [str(beam) for beam in beams])
        logs = [run.log() for run in runs if run.contestant == name]
        seconds, bleu = (
            [statistics.mean(map(float, of)) for of in zip(*columns, strict=True)]
            for columns in (
                [[entry[column] for entry in log] for log in logs]
                for column in ("cpu_seconds", "bleu")
            )
        )
        time_axes.plot(seconds, bleu, "o-", color=line.get_color(), label=name)
    beam_axes.set(xlabel="beam", ylabel="BLEU, test")
    time_axes.set(xlabel="processor seconds after the beginning", ylabel="BLEU, validation")
    beam_axes.legend(fontsize="small")
    for axes in (beam_axes, time_axes):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=140)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --beam is nmt-train's
    )
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", required=True, metavar="PREFIX", help="without language")
    parser.add_argument("--languages", nargs=2, default=("de", "en"), help="(default: de en)")
    parser.add_argument("--config", default="small-rnn", help="of nmt-train (default: small-rnn)")
    parser.add_argument("--runs", type=Path, default=Path("runs/saml-study"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    names = list(CONTESTANTS)
    parser.add_argument("--objectives", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--fewer-seeds", type=int, default=1, help="of all but mle and saml (default: 1)"
    )
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--pretraining", type=int, default=3000, help="updates (default: 3000)")
    parser.add_argument("--tuning-updates", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--updates", type=int, default=3000, help="after that (default: 3000)")
    parser.add_argument("--validate-every", type=int, default=500, help="(default: 500)")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="OBJECTIVE=OPTIONS",
        help='options of one objective, such as "saml=--noise-scale 0.5"; with others than before, '
        "give another --runs",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=OPTIONS",
        help='a variant of saml to try out, such as "no noise=--noise-scale 0"',
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options, shared = parser.parse_known_args()
    if BASELINE not in options.objectives:
        parser.error(f"--objectives: {BASELINE} must be one of them")
    study = Study(options, shared)
    runs = study.finals()
    if not options.report_only:
        study.translate(runs)
    rows = results(runs, list(read_lines(study.reference)), options.beams)
    if not rows:
        raise SystemExit("saml_study: nothing is complete yet")
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(rows, options.out / "saml_study.csv")
    write_csv([run.outcome() for run in study.short], options.out / "saml_study_tuning.csv")
    text = summary(rows, options.beams)
    (options.out / "saml_study.md").write_text(text, encoding="utf-8")
    plot(rows, runs, options.out / "saml_study.png")
    print(text)


if __name__ == "__main__":
    main()
