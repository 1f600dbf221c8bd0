"""Speed of training and decoding, beside JoeyNMT's where a Python with it is named.

    python benchmarks/nmt_speed.py
    python benchmarks/nmt_speed.py --architectures rnn --rounds 5 --peer path/to/peer/bin/python

The sentences are made up: pairs of about 15 subwords, in buckets of equal length. A training step
has batches of 2,048 target positions, dropout 0.1, label smoothing 0.1 and Adam, sizes as in the
table. Decoding has untrained weights, with which both toolkits write exactly `--words` words in
every sentence, so that it is the speed of a step that is compared, and not who ends first.

Both run in one go and take turns, round by round, with the same batches and threads; the fastest
round of each counts. Beside wall-clock, the table has words (or sentences) per second of processor
time times the threads, which other programs on the machine disturb less.

The peer is JoeyNMT 2.3 in an environment of its own (`pip install joeynmt torch`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 8000
TRAINING_TOKENS = 2048
END = 3
BEAMS = (1, 5)
# Options of `ModelConfig`; the worker reads them too.
MODELS: dict[str, dict[str, Any]] = {
    "transformer": {
        "architecture": "transformer",
        "embedding_size": 256,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "heads": 4,
        "feed_forward_size": 1024,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "feed_forward_dropout": 0.1,
    },
    "rnn": {
        "architecture": "rnn",
        "embedding_size": 256,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_units": 256,
        "decoder_units": 512,
        "dropout": 0.1,
    },
}

# (work done, wall-clock seconds, seconds of processor time)
Measurement = tuple[float, float, float]


def make_batches(folder: Path, sentences: int, seed: int = 0) -> None:
    """Writes training batches of several lengths, and one to decode, as ids in .npz files."""
    generator = np.random.default_rng(seed)

    def ids(rows: int, length: int) -> np.ndarray:
        words = generator.integers(4, VOCABULARY, (rows, length), dtype=np.int32)
        words[:, -1] = END
        return words

    for index, (source, target) in enumerate([(15, 16), (12, 12), (19, 20)]):
        rows = TRAINING_TOKENS // max(source, target)
        arrays = {"source": ids(rows, source), "target": ids(rows, target)}
        np.savez(folder / f"train{index}.npz", **arrays)
    np.savez(folder / "decode.npz", source=ids(sentences, 15))


def timed(work: float, run: Callable[[], None]) -> Measurement:
    """Runs something and measures it."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return work, time.perf_counter() - wall, time.process_time() - processor


class Toolkit:
    """This toolkit's model of one architecture."""

    def __init__(self, architecture: str, folder: Path, words: int) -> None:
        import keras
        import tensorflow as tf

        from nmt.decoding import Decoder, DecodingOptions
        from nmt.losses import SmoothedCrossEntropy
        from nmt.models import ModelConfig, build_model

        self.training = [dict(np.load(path)) for path in sorted(folder.glob("train*.npz"))]
        self.source = np.load(folder / "decode.npz")["source"]
        keras.utils.set_random_seed(0)
        sizes = {"source_vocabulary": VOCABULARY, "target_vocabulary": VOCABULARY}
        model = build_model(ModelConfig(**sizes, **MODELS[architecture]))
        loss, optimizer = SmoothedCrossEntropy(0.1), keras.optimizers.Adam(1e-4)
        variables = model.trainable_variables
        optimizer.build(variables)
        spec = tf.TensorSpec([None, None], tf.int32)

        @tf.function(input_signature=[{"source": spec, "target": spec}])
        def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
            with tf.GradientTape() as tape:
                value = loss(batch["target"], model(batch, training=True))
            optimizer.apply(tape.gradient(value, variables), variables)
            return value

        self.step = step
        options = {"max_length": words, "min_length": words}
        self.decoders = {
            beam: Decoder([model], DecodingOptions(beam=beam, **options)) for beam in BEAMS
        }

    def measure(self, what: str) -> Measurement:
        """`"train"` or `"beam N"`."""
        if what == "train":
            work = sum(batch["target"].size for batch in self.training)
            return timed(work, lambda: [float(self.step(batch)) for batch in self.training])
        decoder = self.decoders[int(what.split()[1])]
        return timed(len(self.source), lambda: decoder(self.source))


class Peer:
    """The same measurements by another Python, which runs `nmt_speed_joeynmt.py`."""

    def __init__(
        self, python: str, architecture: str, folder: Path, words: int, threads: int
    ) -> None:
        script = Path(__file__).with_name("nmt_speed_joeynmt.py")
        task = {
            "model": MODELS[architecture],
            "vocabulary": VOCABULARY,
            "folder": str(folder),
            "words": words,
            "threads": threads,
        }
        self.process = subprocess.Popen(
            [python, str(script), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, what: str) -> Measurement:
        """See `Toolkit.measure`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"nmt_speed: the peer ended with exit code {self.process.wait()}")
        return tuple(json.loads(answer))

    def close(self) -> None:
        """Ends the worker."""
        self.process.communicate()


def best(measurements: list[Measurement], threads: int) -> tuple[float, float]:
    """Work per second of wall-clock, and per second of processor time times threads."""
    wall = max(work / seconds for work, seconds, _ in measurements)
    return wall, max(threads * work / seconds for work, _, seconds in measurements)


def compare(
    architecture: str, folder: Path, options: argparse.Namespace
) -> list[tuple[str, float, float, float | None, float | None]]:
    """(what, ours by wall-clock, ours by processor time, the peer's two) for everything."""
    contestants: list[Any] = [Toolkit(architecture, folder, options.words)]
    if options.peer:
        contestants.append(Peer(options.peer, architecture, folder, options.words, options.threads))
    rows = []
    for what in ("train", *(f"beam {beam}" for beam in BEAMS)):
        found: list[list[Measurement]] = [[] for _ in contestants]
        for turn in range(options.rounds + 1):
            for contestant, measurements in zip(contestants, found, strict=True):
                measurement = contestant.measure(what)
                if turn:  # the first one traces and warms up
                    measurements.append(measurement)
            print(f"{architecture}, {what}: round {turn} of {options.rounds}", file=sys.stderr)
        values = [best(measurements, options.threads) for measurements in found]
        rows.append((what, *values[0], *(values[1] if options.peer else (None, None))))
    if options.peer:
        contestants[1].close()
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--sentences", type=int, default=32, help="to decode (default: 32)")
    parser.add_argument("--words", type=int, default=16, help="written in each (default: 16)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: all)")
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has JoeyNMT")
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import tensorflow as tf
    from rich.console import Console
    from rich.table import Table

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    table = Table(title=f"{options.threads} threads; words (training) or sentences per second")
    for column in ("model", "", "nmt", "by CPU time", "JoeyNMT", "by CPU time", "ratio", "ratio"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        make_batches(Path(name), options.sentences)
        for architecture in options.architectures:
            for what, *values in compare(architecture, Path(name), options):
                ours, theirs = values[:2], values[2:]
                ratios = [a / b if b else None for a, b in zip(ours, theirs, strict=True)]
                cells = [f"{x:,.1f}" if x else "" for x in (*ours, *theirs)]
                cells += [f"{x:.2f}" if x else "" for x in ratios]
                table.add_row(architecture, what, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
