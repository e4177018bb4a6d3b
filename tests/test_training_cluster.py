"""The command line of PyTorch's launcher for several GPUs and machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from plugin_data import make_data_folder
from plugin_runs import TINY

from nast_s2x.errors import ConfigError
from nast_s2x.resources import USER_DIR
from nast_s2x.training import read_recipe, run_recipe
from nast_s2x.training.cluster import first_host, launcher, node_rank
from nast_s2x.training.launch import Run

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


def test_two_processes_train_together(tmp_path: Path) -> None:
    """PyTorch's launcher starts both; they are ranks of one training, each update has the sentences of both."""
    pytest.importorskip("fairseq")
    data = make_data_folder(tmp_path / "data")
    flags: dict[str, object] = {"arch": "nast_s2s_tiny"}
    for word, value in zip(TINY, [*TINY[1:], "--"]):
        if word.startswith("--"):
            flags[word[2:]] = True if value.startswith("--") else value
    stage = {"max-update": 2, "disable-validation": True, "no-save": True}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"description": "d", "flags": flags, "stages": {"one": stage}}))
    run = Run(data, tmp_path / "save", gpus=2, flags=("--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"))
    run_recipe(read_recipe(tmp_path / "r.yaml"), run, lambda line: None)
    log = (tmp_path / "save" / "one" / "train.log").read_text()
    assert "as rank 0" in log and "as rank 1" in log
    updates = [json.loads(line.rpartition(" | ")[2]) for line in log.splitlines() if "| train_inner |" in line]
    assert [update["num_updates"] for update in updates] == ["1", "2"]  # rank 0 alone logs them
    # The 24 sentences of the folder less 2 that do not fit their slots: one epoch.
    assert sum(float(update["bsz"]) for update in updates) == 22
