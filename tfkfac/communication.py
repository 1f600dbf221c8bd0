"""What K-FAC asks of other ranks: averages, shared pieces, and the assurance that all agree.

Three traps would hang a job without a word: a collective whose result a rank does not use is pruned
from its graph; one whose input is a constant is evaluated while the graph is being optimised; and
one inside a conditional carries the conditional's number in its name, which differs between ranks
whose graphs differ, so that Horovod matches it with nothing. Here every rank runs the same
collectives under names without scope, stores something of each result, and sends a token that is
read from a variable with each piece.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow as tf

T = TypeVar("T")

Shapes = Sequence[tuple[int, ...]]

_numbers = itertools.count()


class SingleProcess:
    """No other rank."""

    rank, size = 0, 1

    def average(
        self, tensors: Sequence[tf.Tensor], name: str, half: bool = False
    ) -> list[tf.Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def share(
        self,
        mine: Sequence[tf.Tensor],
        shapes: Mapping[int, Shapes],
        token: tf.Tensor,
        name: str,
    ) -> dict[int, list[tf.Tensor]]:
        """This process's own tensors."""
        return {self.rank: list(mine)}

    def prepare_groups(self, groups: Sequence[Sequence[int]]) -> None:
        """Nothing to prepare."""

    def require_agreement(self, description: Mapping[str, str]) -> None:
        """Nobody to disagree."""


class Horovod:
    """Collectives over the ranks that `horovodrun`, `mpirun` or `srun` started.

    Args:
        hvd: The module `horovod.tensorflow`, initialised.
    """

    def __init__(self, hvd: Any):
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        # Two optimizers in one program must not use the same names. Ranks count alike.
        self._prefix = f"kfac{next(_numbers)}_"
        self._process_sets: dict[tuple[int, ...], Any] = {}

    def average(
        self, tensors: Sequence[tf.Tensor], name: str, half: bool = False
    ) -> list[tf.Tensor]:
        """Element-wise means over ranks, in one fused operation.

        Args:
            tensors: The same shapes on every rank.
            name: Of the operation.
            half: Send float16.
        """
        if not tensors:
            return []
        sent = [tf.cast(t, tf.float16) if half else t for t in tensors]
        means = self._hvd.grouped_allreduce(
            sent, name=self._prefix + name, op=self._hvd.Average, ignore_name_scope=True
        )
        return [tf.cast(mean, t.dtype) for mean, t in zip(means, tensors, strict=True)]

    def share(
        self,
        mine: Sequence[tf.Tensor],
        shapes: Mapping[int, Shapes],
        token: tf.Tensor,
        name: str,
    ) -> dict[int, list[tf.Tensor]]:
        """Gives each rank of a group the tensors of all of them, in one operation.

        Args:
            mine: This rank's tensors, of the token's dtype.
            shapes: What each rank of the group contributes, by rank.
            token: A scalar read from a variable: it keeps the input from being a constant.
            name: Of the operation.

        Returns:
            Tensors by rank.
        """
        ranks = sorted(shapes)
        if len(ranks) == 1:
            return {self.rank: list(mine)}
        vector = tf.concat([tf.reshape(t, [-1]) for t in (token, *mine)], 0)
        gathered = self._hvd.allgather(
            vector,
            name=self._prefix + name,
            process_set=self._process_set(ranks),
            ignore_name_scope=True,
        )
        sizes = [1 + sum(math.prod(shape) for shape in shapes[rank]) for rank in ranks]
        received = {}
        for rank, part in zip(ranks, tf.split(gathered, sizes), strict=True):
            lengths = [1, *(math.prod(shape) for shape in shapes[rank])]
            _, *flat = tf.split(part, lengths)
            received[rank] = [tf.reshape(f, s) for f, s in zip(flat, shapes[rank], strict=True)]
        return received

    def prepare_groups(self, groups: Sequence[Sequence[int]]) -> None:
        """Makes Horovod process sets of groups of ranks; every rank names the same groups.

        Raises:
            RuntimeError: Horovod was not started for process sets.
        """
        from horovod.common import process_sets

        # Horovod offers no public way to find a set that was made before.
        existing = process_sets._basics._get_process_set_ids_and_ranks()
        ids = {tuple(ranks): number for number, ranks in existing.items()}
        for group in groups:
            ranks = tuple(sorted(group))
            if len(ranks) in (1, self.size) or ranks in self._process_sets:
                continue
            if ranks in ids:
                process_set = process_sets.ProcessSet(list(ranks))
                process_set.process_set_id = ids[ranks]
            else:
                try:
                    process_set = self._hvd.add_process_set(list(ranks))
                except Exception as error:
                    raise RuntimeError(
                        'KFAC: placement="hybrid" needs Horovod process sets: set the environment '
                        "variable HOROVOD_DYNAMIC_PROCESS_SETS=1 before hvd.init(), or pass "
                        "hvd.init(process_sets=...) the groups of tfkfac.placement.make_grid. "
                        f"Horovod says: {error}"
                    ) from error
            self._process_sets[ranks] = process_set

    def _process_set(self, ranks: Sequence[int]) -> Any:
        if len(ranks) == self.size:
            return self._hvd.global_process_set
        return self._process_sets[tuple(ranks)]

    def require_agreement(self, description: Mapping[str, str]) -> None:
        """Compares what the ranks are about to do, so that a difference is an error, not a hang.

        Args:
            description: What must be the same everywhere: texts by name.

        Raises:
            RuntimeError: On every rank, if some rank differs from rank 0.
        """
        # Collectives of their own, while a training step is being traced: outside of the trace.
        everyone = outside_trace(lambda: self._hvd.allgather_object(dict(description)))
        for rank, theirs in enumerate(everyone):
            for key in sorted(set(theirs) | set(everyone[0])):
                ours, other = everyone[0].get(key, "nothing"), theirs.get(key, "nothing")
                if ours != other:
                    raise RuntimeError(
                        f"KFAC: ranks differ in {key}: rank 0 has {ours}, rank {rank} has "
                        f"{other}. Every rank must build the same model and the same optimizer."
                    )


Communication = SingleProcess | Horovod


def detect(choice: str = "auto") -> Communication:
    """The ranks to work with.

    Args:
        choice: `"auto"`: Horovod where the program imported it and called `hvd.init()`;
            `"horovod"`: that or an error; `"none"`: this process alone.

    Raises:
        RuntimeError: `"horovod"`, and it was not initialised.
    """
    hvd = sys.modules.get("horovod.tensorflow")
    initialised = hvd is not None and hvd.is_initialized()
    if choice == "horovod" and not initialised:
        raise RuntimeError(
            'KFAC: communication="horovod", but hvd.init() was not called; '
            "import horovod.tensorflow as hvd and call hvd.init() first"
        )
    if choice != "none" and initialised and hvd is not None and hvd.size() > 1:
        return Horovod(hvd)
    return SingleProcess()


def outside_trace(action: Callable[[], T]) -> T:
    """Runs `action` while a training step is being traced, but not as part of it.

    `tf.function` traces a step twice when the first trace creates variables, also under
    `tf.init_scope`. It does not see what another thread does.
    """
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(action).result()
