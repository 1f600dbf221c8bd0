"""What `tfkfac-plan` predicts for the runs that `rank_scaling.py` measured, beside the measurement.

    python benchmarks/rank_scaling.py --out docs/results
    python benchmarks/rank_prediction.py --measured docs/results/rank_scaling.csv --out docs/results

For every number of ranks the machine is calibrated with as many ranks and threads as were measured;
the measured step without K-FAC takes the place of the estimate of training, as with
`tfkfac-plan --training-seconds`. Everything else is predicted.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCHEMES: dict[str, dict[str, object]] = {
    "factor-wise": {},
    "factor-wise, refreshed": {"refresh_above": 512},
    "layer-wise": {"placement": "layer-wise"},
    "hybrid": {"placement": "hybrid"},
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--measured", type=Path, default=Path("docs/results/rank_scaling.csv"))
    parser.add_argument("--batch", type=int, default=32, help="images a rank and step")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    from models.resnet import cifar_resnet
    from tfkfac import machine, model_trace
    from tfkfac.costs import GRADIENTS, Scheme, predict

    with options.measured.open() as file:
        measured = list(csv.DictReader(file))
    plain = {row["ranks"]: int(row["plain"]) for row in measured if row["configuration"] == "sgd"}
    subject = model_trace.Subject("resnet8", cifar_resnet(8, width=32))
    workload = model_trace.trace(subject, batch_size=options.batch)
    machines = {ranks: machine.read(_calibrated(int(ranks))) for ranks in plain}
    rows = []
    for row in measured:
        if row["configuration"] not in SCHEMES:
            continue
        ranks = row["ranks"]
        scheme = Scheme(**SCHEMES[row["configuration"]])  # type: ignore[arg-type]
        arguments = (workload, machines[ranks], int(ranks), scheme)
        # The measured step averages gradients, too.
        training = plain[ranks] / 1000 - predict(*arguments).seconds[GRADIENTS]
        found = predict(*arguments, training_seconds=training)
        predicted = {
            "plain": found.plain_step_seconds,
            "factor": found.factor_step_seconds,
            "decomposition": found.longest_step_seconds,
            "amortised 10/100": found.step_seconds,
        }
        result = {"ranks": ranks, "configuration": row["configuration"]}
        for kind, seconds in predicted.items():
            result[kind] = row[kind]
            result[f"{kind}, predicted"] = str(round(1000 * seconds))
        rows.append(result)
        print("  ".join(result.values()), flush=True)
    with (options.out / "rank_prediction.csv").open("w", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _calibrated(ranks: int) -> Path:
    """The description of this machine when so many ranks share it, a thread each."""
    out = Path(tempfile.mkdtemp()) / f"{ranks}.yaml"
    binaries = Path(sys.executable).parent
    command = [str(binaries / "tfkfac-plan"), "calibrate", "--out", str(out)]
    if ranks > 1:
        command = [str(binaries / "horovodrun"), "-np", str(ranks), "--gloo", *command]
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1", **os.environ}
    subprocess.run(command, check=True, env={**environment, **threads})
    return out


if __name__ == "__main__":
    main()
