"""JoeyNMT's side of `nmt_speed.py`, for a Python that has JoeyNMT 2.3.

Reads a line for each measurement, and answers with a line of JSON: work, wall-clock seconds,
seconds of processor time.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from joeynmt.batch import Batch
from joeynmt.model import build_model
from joeynmt.search import search
from joeynmt.vocabulary import Vocabulary

# The ids that JoeyNMT's special words have to have.
UNKNOWN, PAD, BEGIN, END = range(4)


def model_options(options: dict) -> dict:
    """JoeyNMT's configuration of the model."""
    size, rate = options["embedding_size"], options["dropout"]
    embeddings = {"embedding_dim": size, "scale": options["architecture"] == "transformer"}
    embeddings["dropout"] = rate
    if options["architecture"] == "transformer":
        part = {
            "type": "transformer",
            "embeddings": embeddings,
            "hidden_size": size,
            "ff_size": options["feed_forward_size"],
            "num_heads": options["heads"],
            "dropout": rate,
            "layer_norm": "pre",
        }
        encoder = {**part, "num_layers": options["encoder_layers"]}
        return {"encoder": encoder, "decoder": {**part, "num_layers": options["decoder_layers"]}}
    part = {"type": "recurrent", "rnn_type": "lstm", "embeddings": embeddings, "dropout": rate}
    return {
        "encoder": {
            **part,
            "hidden_size": options["encoder_units"],
            "bidirectional": True,
            "num_layers": options["encoder_layers"],
        },
        "decoder": {
            **part,
            "hidden_size": options["decoder_units"],
            "hidden_dropout": rate,
            "num_layers": options["decoder_layers"],
            "input_feeding": True,
            "init_hidden": "bridge",
            "attention": "bahdanau",
        },
    }


def make_batch(source: np.ndarray, target: np.ndarray | None) -> Batch:
    """The same ids as JoeyNMT's batch."""
    ids = torch.from_numpy(source.astype(np.int64))
    words = None
    if target is not None:
        begin = np.full((len(target), 1), BEGIN)
        words = torch.from_numpy(np.concatenate([begin, target], axis=1).astype(np.int64))
    return Batch(
        src=ids,
        src_length=torch.full((len(source),), source.shape[1]),
        src_prompt_mask=None,
        trg=words,
        trg_prompt_mask=None,
        indices=torch.arange(len(source)),
        device=torch.device("cpu"),
        pad_index=PAD,
        eos_index=END,
    )


def main() -> None:
    """Measures what standard input asks for."""
    task = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    special = {
        **{"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
        **{"unk_id": UNKNOWN, "pad_id": PAD, "bos_id": BEGIN, "eos_id": END},
        **{"sep_token": None, "sep_id": None, "lang_tags": []},
    }
    words = [f"w{number}" for number in range(4, task["vocabulary"])]
    vocabulary = Vocabulary(words, SimpleNamespace(**special))
    model = build_model(model_options(task["model"]), vocabulary, vocabulary)
    model.loss_function = ("crossentropy", 0.1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    folder = Path(task["folder"])
    training = [dict(np.load(path)) for path in sorted(folder.glob("train*.npz"))]
    source = np.load(folder / "decode.npz")["source"]

    def train() -> None:
        model.train()
        for arrays in training:
            batch = make_batch(arrays["source"], arrays["target"])
            loss = model(return_type="loss", **vars(batch))[0] / batch.ntokens
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    def decode(beam: int) -> None:
        model.eval()
        with torch.no_grad():
            found, _, _ = search(
                model,
                make_batch(source, None),
                max_output_length=task["words"],
                min_output_length=task["words"],
                beam_size=beam,
                beam_alpha=1.0,
            )
        assert found.shape[1] >= task["words"] - 1, found.shape

    for line in sys.stdin:
        what = line.strip()
        wall, processor = time.perf_counter(), time.process_time()
        if what == "train":
            train()
            work = sum(arrays["target"].size for arrays in training)
        else:
            decode(int(what.split()[1]))
            work = len(source)
        seconds = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps([work, *seconds]), flush=True)


if __name__ == "__main__":
    main()
