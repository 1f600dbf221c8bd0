"""Models that several tests use, each trained once."""

import pytest

from nmt.train import main
from tests.nmt.tasks import SMALL, write_task


@pytest.fixture(scope="session")
def copy_model(tmp_path_factory):
    """A Transformer that has learned to copy: 300 updates, validated three times."""
    folder = tmp_path_factory.mktemp("copy")
    arguments = [
        *(*SMALL, *write_task(folder, list), "--dropout", "0", "--tensorboard"),
        *("--learning-rate", "0.005", "--warmup", "50", "--schedule", "cosine"),
        *("--updates", "300", "--validate-every", "100", "--out", str(folder / "model")),
    ]
    assert main(arguments) == 0
    return folder / "model"
