"""Sentences per second of exported models beside the toolkit's own decoder, beam 5.

    python benchmarks/nmt_export_speed.py
    python benchmarks/nmt_export_speed.py --architecture rnn --threads 4

The model has the sizes of `nmt_speed.py` and no training, so every decoder is made to write exactly
`--words` words in every sentence: it is the speed of a step that is compared, and not who ends
first. All take turns in one process, round by round, with the same batches and threads; the fastest
round of each counts. "per processor second" is by processor time times the threads, which other
programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nmt_speed import END, MODELS, VOCABULARY, Measurement, best, timed


class Pieces:
    """A vocabulary of numbers, instead of one that was learned from text."""

    def __len__(self) -> int:
        return VOCABULARY

    def pieces(self, ids: Any) -> list[str]:
        """As `Subwords.pieces`."""
        return [("<pad>", "<unk>", "<s>", "</s>")[i] if i < 4 else str(i) for i in ids]


def decoders(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[np.ndarray], Any]]:
    """What decodes source ids [batch, S], by name."""
    import keras
    import tensorflow as tf

    from nmt.decoding import Decoder, DecodingOptions
    from nmt.export import saved_model
    from nmt.models import ModelConfig, build_model

    keras.utils.set_random_seed(0)
    sizes = {"source_vocabulary": VOCABULARY, "target_vocabulary": VOCABULARY}
    model = build_model(ModelConfig(**sizes, **MODELS[options.architecture]))
    search = DecodingOptions(options.beam, max_length=options.words, min_length=options.words)
    result: dict[str, Callable[[np.ndarray], Any]] = {"nmt": Decoder([model], search)}
    saved_model.save([model], search, folder / "savedmodel")
    loaded = tf.saved_model.load(str(folder / "savedmodel"))
    result["SavedModel"] = lambda source: loaded.decode(tf.constant(source))
    if options.architecture == "rnn":
        return result

    import ctranslate2

    from nmt.export import ctranslate2_model

    pieces = Pieces()
    for quantization in ("float32", "int8"):
        path = folder / quantization
        named: dict[str, Any] = {"source": pieces, "target": pieces, "quantization": quantization}
        ctranslate2_model.save(model, path=path, positions=100, **named)
        for name, threads in (
            ("", {"intra_threads": options.threads}),
            (", batches side by side", {"inter_threads": options.threads, "intra_threads": 1}),
        ):
            translator = ctranslate2.Translator(str(path), compute_type=quantization, **threads)

            def translate(source: np.ndarray, translator: Any = translator) -> Any:
                found = translator.translate_batch(
                    [pieces.pieces(row[row != END]) for row in source],
                    beam_size=options.beam,
                    max_batch_size=options.batch_size,
                    max_decoding_length=options.words - 1,  # END not counted
                    min_decoding_length=options.words - 1,
                )
                assert len(found[0].hypotheses[0]) == options.words - 1
                return found

            result[f"CTranslate2 {quantization}{name}"] = translate
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", choices=MODELS, default="transformer")
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--words", type=int, default=15, help="END included, on both sides")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    generator = np.random.default_rng(0)
    shape = options.sentences, options.words
    source = generator.integers(4, VOCABULARY, shape, dtype=np.int32)
    source[:, -1] = END
    batches = [
        source[i : i + options.batch_size] for i in range(0, len(source), options.batch_size)
    ]
    with tempfile.TemporaryDirectory() as folder:
        contestants = decoders(options, Path(folder))
        found: dict[str, list[Measurement]] = {name: [] for name in contestants}
        for turn in range(options.rounds + 1):
            for name, decode in contestants.items():
                # CTranslate2 cuts batches by itself, and may then work on several of them.
                parts = [source] if name.startswith("CTranslate2") else batches
                measurement = timed(
                    len(source), lambda parts=parts, decode=decode: [decode(part) for part in parts]
                )
                if turn:  # the first one traces and warms up
                    found[name].append(measurement)
            print(f"round {turn} of {options.rounds}", file=sys.stderr)
    print(
        f"{options.architecture}, beam {options.beam}, {options.words} words, "
        f"{options.threads} threads, batches of {options.batch_size}\n"
    )
    print("| decoder | sentences/s | per processor second |\n|---|---:|---:|")
    for name, measurements in found.items():
        wall, processor = best(measurements, options.threads)
        print(f"| {name} | {wall:.0f} | {processor:.0f} |")


if __name__ == "__main__":
    main()
