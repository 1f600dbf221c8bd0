"""The processes of a training under Horovod, or the one process without it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tfkfac.errors import InputError

# horovodrun sets the first in each process that it starts; MPI's launchers set the others.
RANK_VARIABLE = "HOROVOD_RANK"
MPI_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")

HOROVOD_DEFAULTS = {
    # K-FAC's hybrid placement makes groups of ranks.
    "HOROVOD_DYNAMIC_PROCESS_SETS": "1",
}


@dataclass(frozen=True)
class Ranks:
    """This process's number among `size` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process prints, logs and saves."""
        return self.rank == 0

    def from_first(self, number: int) -> int:
        """The first rank's `number`, on all ranks. All of them must call this."""
        if self.size == 1:
            return number
        import horovod.tensorflow as hvd
        import tensorflow as tf

        return int(hvd.broadcast(tf.constant(number), root_rank=0, name="from_first"))


def launched_as_first(horovod: bool) -> bool:
    """Whether this is the first rank, from the environment alone: before Horovod starts."""
    variables = (RANK_VARIABLE, *(MPI_RANK_VARIABLES if horovod else ()))
    ranks = [os.environ[name] for name in variables if name in os.environ]
    return not ranks or ranks[0] == "0"


def start(horovod: bool) -> Ranks:
    """Joins the other processes and takes this one's GPU, if there are several.

    Args:
        horovod: use Horovod even where horovodrun's variables are absent, as under mpirun.

    Raises:
        InputError: if Horovod is wanted but not installed.
    """
    if not horovod and RANK_VARIABLE not in os.environ:
        return Ranks()
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        cause = "--horovod" if horovod else f"{RANK_VARIABLE} is set, as by horovodrun"
        raise InputError(f"{cause}, but Horovod for TensorFlow is missing ({error})") from error
    import tensorflow as tf

    for variable, value in HOROVOD_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    hvd.init()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[hvd.local_rank() % len(gpus)], "GPU")
    return Ranks(hvd.rank(), hvd.size())
