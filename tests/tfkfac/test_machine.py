"""Machine descriptions: read strictly, times by hand, and measured in this process."""

import dataclasses
import types

import numpy as np
import pytest

from tfkfac import machine
from tfkfac.errors import InputError
from tfkfac.machine import Link, Machine

MACHINE = Machine(
    name="by hand",
    eigh={10: 1.0, 100: 100.0},
    matmul_flops=100.0,
    training_flops=50.0,
    factor_flops=25.0,
    memory_bandwidth=10.0,
    operation_seconds=0.5,
    ranks_per_node=2,
    inside=Link(bandwidth=100.0, latency=0.1),
    across=Link(bandwidth=10.0, latency=1.0),
)

TEXT = """\
name: written by hand
matmul_flops: 1e2
training_flops: 50
factor_flops: 25
memory_bandwidth: 10
operation_seconds: 0.5
ranks_per_node: 2
inside: {bandwidth: 100, latency: 0.1}
across:
  bandwidth: 10
  latency: 1
eigh:
  10: 1
  100: 1e2
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "machine.yaml"
        path.write_text(text)
        return path

    return write


# --- times ---


def test_eigh_follows_a_power_law_between_orders():
    # From 1 s at 10 to 100 s at 100: like n².
    assert MACHINE.eigh_seconds(10) == 1
    assert MACHINE.eigh_seconds(30) == pytest.approx(9)
    assert MACHINE.eigh_seconds(100) == pytest.approx(100)


def test_eigh_beyond_the_table():
    assert MACHINE.eigh_seconds(200) == pytest.approx(800)
    assert MACHINE.eigh_seconds(3) == 1


def test_compute_seconds():
    assert MACHINE.compute_seconds(200) == 2
    assert MACHINE.compute_seconds(200, moved=30, operations=4) == 2 + 3 + 2


def test_a_ring_within_a_node():
    # Two ranks: 2 (2-1)/2 of 50 bytes at 100 bytes a second, and 2 hops.
    assert MACHINE.allreduce_seconds([[0, 1]], [50]) == pytest.approx(0.5 + 0.2)
    assert MACHINE.allgather_seconds([[0, 1]], [50]) == pytest.approx(0.25 + 0.1)


def test_a_ring_across_nodes():
    # Four ranks on two nodes: 2·3/4 of 40 bytes at 10 bytes a second, and 6 hops.
    assert MACHINE.allreduce_seconds([[0, 1, 2, 3]], [40]) == pytest.approx(6 + 6)


def test_several_operations_share_the_bytes_but_not_the_hops():
    assert MACHINE.allgather_seconds([[0, 1]], [50], operations=4) == pytest.approx(0.25 + 0.4)


def test_rings_that_leave_a_node_share_its_link():
    # Ranks 0 and 2, 1 and 3: both rings leave both nodes.
    alone = MACHINE.allgather_seconds([[0, 2]], [40])
    both = MACHINE.allgather_seconds([[0, 2], [1, 3]], [40, 40])
    assert alone == pytest.approx(2 + 1)
    assert both == pytest.approx(4 + 1)


def test_the_slowest_ring_counts():
    groups = [[0, 1], [2, 3]]
    assert MACHINE.allgather_seconds(groups, [0, 200]) == MACHINE.allgather_seconds(
        groups, [200, 200]
    )


def test_nothing_to_send_takes_no_time():
    assert MACHINE.allreduce_seconds([[0, 1, 2, 3]], [0]) == 0
    assert MACHINE.allreduce_seconds([[0]], [100]) == 0


def test_a_missing_link_is_named():
    lonely = dataclasses.replace(MACHINE, across=None, source="mine.yaml")
    assert lonely.allreduce_seconds([[0, 1]], [50]) > 0
    with pytest.raises(InputError, match=r"mine\.yaml: no key across, the link between nodes"):
        lonely.allreduce_seconds([[1, 2]], [50])


# --- files ---


def test_reads_what_is_written(write):
    path = write(TEXT)
    expected = dataclasses.replace(MACHINE, name="written by hand", source=str(path))
    assert machine.read(path) == expected


def test_text_reads_as_the_same(write):
    path = write(machine.text(MACHINE, "Two\nlines."))
    assert path.read_text().startswith("# Two\n# lines.\n")
    assert machine.read(path) == dataclasses.replace(MACHINE, source=str(path))


def test_a_rate_instead_of_a_table(write):
    rated = machine.read(write(TEXT[: TEXT.index("eigh")] + "eigh_rate: 1e6\n"))
    assert rated.eigh_seconds(100) == pytest.approx(1)
    assert rated.eigh_seconds(200) == pytest.approx(8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("matmul_flops: 1e2\n", "", r"machine\.yaml: no key matmul_flops$"),
        ("eigh:\n  10: 1\n  100: 1e2\n", "", r"machine\.yaml: no key eigh or eigh_rate$"),
        ("matmul_flops", "matmul_flop", r":2: unknown key matmul_flop \(did you mean matmul_flops"),
        ("1e2", "fast", r":2: matmul_flops: expected a number above 0, not 'fast'"),
        ("1e2", "0", r":2: matmul_flops: expected a number above 0, not '0'"),
        ("1e2", "", r":2: matmul_flops: expected a number above 0, not None"),
        ("node: 2", "node: 1.5", r":7: ranks_per_node: expected a whole number above 0"),
        ("latency: 0.1", "delay: 0.1", r":8: inside: unknown key delay"),
        (", latency: 0.1", "", r":8: inside: no key latency"),
        ("{bandwidth: 100, latency: 0.1}", "fast", r":8: expected lines such as 'bandwidth"),
        ("  10: 1", "  ten: 1", r":12: eigh: expected an order, a whole number above 0, not 'ten'"),
        ("  10: 1", "  10: -1", r":12: eigh\[10\]: expected a number above 0, not '-1'"),
        ("  10: 1", "  10: 1\n  10: 2", r":14: 10 is set twice"),
        ("eigh:\n  10: 1\n  100: 1e2", "eigh: {}", r":12: eigh: expected at least one line"),
        ("eigh:", "eigh_rate: 1\neigh:", r"both eigh and eigh_rate"),
        ("name:", "gpu: maybe\nname:", r":1: gpu: expected true or false, not 'maybe'"),
        ("name: written", "name: [written", r"no valid YAML"),
    ],
)
def test_errors_name_file_line_and_key(write, old, new, message):
    assert old in TEXT
    with pytest.raises(InputError, match=message):
        machine.read(write(TEXT.replace(old, new, 1)))


def test_finds_files_and_names(write):
    path = write(TEXT)
    assert machine.find(str(path)) == path
    assert machine.find("v100-cluster").is_file()
    with pytest.raises(InputError, match=r"unknown machine v100-clster \(did you mean v100-clu"):
        machine.find("v100-clster")
    with pytest.raises(InputError, match=r"--machine: no file absent\.yaml"):
        machine.find("absent.yaml")


@pytest.mark.parametrize("name", machine.machine_names())
def test_descriptions_that_come_with_it(name):
    described = machine.read(machine.find(name))
    orders = [16, 64, 100, 256, 577, 1024, 2048, 4608, 8192]
    seconds = [described.eigh_seconds(order) for order in orders]
    assert seconds == sorted(seconds)
    # They can plan any number of ranks.
    assert described.allreduce_seconds([list(range(64))], [1e6]) > 0
    assert described.allreduce_seconds([[0, 1]], [1e6]) > 0


# --- calibration ---


@pytest.fixture
def short(monkeypatch):
    from tfkfac import calibration

    monkeypatch.setattr(calibration, "FEWEST", 1)
    monkeypatch.setattr(calibration, "MOST", 1)
    return calibration


def test_measures_this_machine(short, write):
    steps: list[str] = []
    measured = short.measure("here", orders=(8, 96), progress=steps.append)
    assert list(measured.eigh) == [8, 96]
    assert measured.eigh[96] > measured.eigh[8] > 0
    for rate in ("matmul_flops", "training_flops", "factor_flops", "memory_bandwidth"):
        assert 1e6 < getattr(measured, rate) < 1e16
    assert 1e-8 < measured.operation_seconds < 0.1
    assert measured.inside is None
    assert measured.ranks_per_node == 1
    assert steps[0] == "eigendecomposition of order 8"
    path = write(machine.text(measured, short.comment(measured, 1)))
    assert "No link within a node was measured" in path.read_text()
    read = machine.read(path)
    assert read.name == "here"
    np.testing.assert_allclose(read.eigh[96], measured.eigh[96], rtol=0.01)


def test_measures_links_between_ranks(short, monkeypatch):
    """Four ranks whose allreduce takes 0.3 s and 2 s: 0.05 s a hop, 24 MB at 14.1 MB/s."""
    seconds = iter([0.3, 2.0])
    monkeypatch.setattr(short, "_seconds", lambda action, hvd: next(seconds))
    link = short._link(types.SimpleNamespace(size=lambda: 4))
    assert link.latency == pytest.approx(0.05)
    assert link.bandwidth == pytest.approx(1.5 * short.LARGE_BYTES / 1.7)
