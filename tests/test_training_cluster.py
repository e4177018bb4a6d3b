"""The command line of PyTorch's launcher for several GPUs and machines."""

from __future__ import annotations

import sys

import pytest

from nast_s2x.errors import ConfigError
from nast_s2x.resources import USER_DIR
from nast_s2x.training.cluster import first_host, launcher, node_rank

HEAD = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
RANK = str(USER_DIR / "training" / "rank.py")
SLURM = {
    "SLURM_JOB_ID": "123456", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[03-05,9]", "SLURM_JOB_NUM_NODES": "2",
}  # fmt: skip


def test_one_machine() -> None:
    assert launcher(4, 1, {}) == [*HEAD, "4", "--standalone", RANK]
    assert node_rank(1, SLURM) == 0


def test_several_machines() -> None:
    words = launcher(8, 2, SLURM)
    assert words == [
        *HEAD, "8", "--nnodes", "2", "--node-rank", "1", "--master-addr", "gpu03", "--master-port", "23456", RANK,
    ]  # fmt: skip
    plain = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000", "NODE_RANK": "0"}
    assert launcher(8, 3, plain)[-7:-1] == ["--node-rank", "0", "--master-addr", "10.0.0.1", "--master-port", "5000"]
    assert node_rank(3, plain) == 0 and node_rank(2, SLURM) == 1


@pytest.mark.parametrize(
    ("gpus", "nodes", "environment", "message"),
    [
        (0, 1, {}, "--gpus must be at least 1, but is 0"),
        (1, 0, {}, "--nodes must be at least 1"),
        (1, 2, {"MASTER_ADDR": "a"}, "needs MASTER_PORT, NODE_RANK in the environment"),
        (1, 3, SLURM, "--nodes is 3, but the SLURM job has 2 nodes"),
        (1, 2, SLURM | {"SLURM_JOB_NODELIST": ""}, "not a list of hosts"),
    ],
)
def test_what_is_refused(gpus: int, nodes: int, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launcher(gpus, nodes, environment)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"), ("node1,node2", "node1"), ("gpu[03-05,9]", "gpu03"), ("a-b.c[7]", "a-b.c7"),
        ("x[1-2].site.org,y3", "x1.site.org"),
    ],
)  # fmt: skip
def test_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
