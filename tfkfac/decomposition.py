"""One decomposition step of a rank: what it decomposes itself, and what it gets from others.

Each factor has an owner in its layer's worker group, who decomposes it and shares the basis with
the group. A factor that is *spread* is decomposed that way only once; from then on all of the group
refresh its basis together (see `refresh`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tfkfac import layer_state, refresh
from tfkfac.communication import Communication
from tfkfac.layer_state import LayerState
from tfkfac.placement import Placement
from tfkfac.plan import DIAGONAL, Side

Key = tuple[int, str]
Bases = dict[Key, list[tf.Tensor]]


class Decomposer:
    """Decomposes the factors of one trace's layers.

    Args:
        states: Layers of which this rank keeps bases, by weight.
        placement: Who owns what.
        communication: The ranks.
        method: `"eigen"` or `"inverse"`.
        token: A scalar variable, see `communication`.
    """

    def __init__(
        self,
        states: Mapping[int, LayerState],
        placement: Placement,
        communication: Communication,
        method: str,
        token: tf.Variable,
    ):
        self._states, self._placement, self._communication = states, placement, communication
        self._method, self._token = method, token
        self._sides: dict[Key, Side] = {
            (layer, name): side for layer, state in states.items() for name, side in state.sides()
        }
        grid = placement.grid
        self._members = grid.members(grid.group_of(communication.rank))

    def run(self, factors: Mapping[Key, tf.Tensor], damping: tf.Tensor) -> Bases:
        """New bases of all factors, in the order of `LayerPlan.basis_shapes`.

        Args:
            factors: Finite factors (for inverses: damped ones) by layer and side.
            damping: λ.
        """
        bases: Bases = {}
        shared: list[Key] = []
        spread: list[Key] = []
        spreads = {(work.layer, work.side): work.spread for work in self._placement.works}
        for key, side in self._sides.items():
            if side.structure == DIAGONAL:
                # Cheaper to repeat than to send.
                bases[key] = layer_state.decompose(factors[key], side, self._method)
            else:
                (spread if spreads[key] else shared).append(key)
        bases.update(self._decompose(shared, factors, "bases"))
        if spread:
            decomposed = [
                self._states[layer].counters[layer_state.DECOMPOSITIONS] > 0 for layer, _ in spread
            ]
            flat = tf.cond(
                tf.reduce_all(decomposed),
                lambda: _flatten(self._refresh(spread, factors, damping), spread),
                lambda: _flatten(self._decompose(spread, factors, "first_bases"), spread),
            )
            pairs = zip(flat[::2], flat[1::2], strict=True)
            bases.update({key: list(pair) for key, pair in zip(spread, pairs, strict=True)})
        return bases

    def _decompose(self, keys: Sequence[Key], factors: Mapping[Key, tf.Tensor], name: str) -> Bases:
        """Bases of `keys`: this rank's own, and those that the other members send."""
        owned: dict[int, list[Key]] = {rank: [] for rank in self._members}
        for key in keys:
            owned[self._placement.owners[key]].append(key)
        mine = []
        for key in owned[self._communication.rank]:
            mine += layer_state.decompose(factors[key], self._sides[key], self._method)
        shapes = {
            rank: [shape for key in own for shape in self._shapes(key)]
            for rank, own in owned.items()
        }
        received = self._communication.share(mine, shapes, self._token, name) if keys else {}
        bases: Bases = {}
        for rank, tensors in received.items():
            rest = iter(tensors)
            for key in owned[rank]:
                bases[key] = [next(rest) for _ in self._shapes(key)]
        return bases

    def _shapes(self, key: Key) -> list[tuple[int, ...]]:
        layer, name = key
        return list(self._states[layer].plan.basis_shapes(name, self._method).values())

    def _refresh(
        self, keys: Sequence[Key], factors: Mapping[Key, tf.Tensor], damping: tf.Tensor
    ) -> Bases:
        tasks = []
        position = self._members.index(self._communication.rank)
        for key in keys:
            first, count = _columns(factors[key].shape[-1], len(self._members))[position]
            vectors = self._states[key[0]].variables[f"{key[1]}_eigenvectors"]
            blur = refresh.BLUR * tf.cast(damping, factors[key].dtype)
            blur /= tf.maximum(self._largest_eigenvalue_opposite(key), 1e-30)
            tasks.append(refresh.Refresh(factors[key], tf.identity(vectors), first, count, blur))
        orders = [factors[key].shape[-1] for key in keys]
        bases = refresh.refresh(tasks, lambda columns, name: self._gather(columns, orders, name))
        return {key: [b.values, b.vectors] for key, b in zip(keys, bases, strict=True)}

    def _largest_eigenvalue_opposite(self, key: Key) -> tf.Tensor:
        layer, name = key
        state = self._states[layer]
        opposite = [other for other, _ in state.sides() if other != name]
        if not opposite:
            return tf.ones([], state.weight.dtype)
        return tf.reduce_max(state.basis(opposite[0]).values)

    def _gather(
        self, columns: Sequence[tf.Tensor], orders: Sequence[int], name: str
    ) -> list[tf.Tensor]:
        """All columns of several matrices, of which each member computed some."""
        members = self._members
        if len(members) == 1:
            return list(columns)
        shapes = {
            rank: [
                (*matrix.shape[:-1], _columns(n, len(members))[i][1])
                for matrix, n in zip(columns, orders, strict=True)
            ]
            for i, rank in enumerate(members)
        }
        received = self._communication.share(columns, shapes, self._token, f"refresh_{name}")
        return [
            tf.concat([received[rank][i] for rank in members], axis=-1) for i in range(len(columns))
        ]


def _columns(n: int, members: int) -> list[tuple[int, int]]:
    """First column and number of columns of each member."""
    edges = [n * i // members for i in range(members + 1)]
    return [(first, after - first) for first, after in zip(edges, edges[1:], strict=False)]


def _flatten(bases: Bases, keys: Sequence[Key]) -> list[tf.Tensor]:
    return [tensor for key in keys for tensor in bases[key]]
