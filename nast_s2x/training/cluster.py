"""Training on several GPUs and machines: the command line of PyTorch's launcher (torchrun)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from nast_s2x.errors import ConfigError
from nast_s2x.resources import USER_DIR

_RANK = str(USER_DIR / "training" / "rank.py")
_FIRST_PORT, _PORTS = 20_000, 20_000


def launcher(gpus: int, nodes: int, environment: Mapping[str, str]) -> list[str]:
    """Words before the arguments of ``fairseq-train`` that start it once for each GPU of this machine.

    On several machines the same command runs once on each. Under SLURM (``srun --ntasks-per-node 1``) the address of
    the first machine and the number of this one are read from the job; elsewhere from ``MASTER_ADDR``, ``MASTER_PORT``
    and ``NODE_RANK``, the variables of torchrun.

    Args:
        gpus: of each machine.
        nodes: machines.
        environment: environment variables.

    Raises:
        ConfigError: numbers below 1, or an incomplete environment.
    """
    for name, value in (("gpus", gpus), ("nodes", nodes)):
        if value < 1:
            raise ConfigError(f"--{name} must be at least 1, but is {value}")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(gpus)]
    if nodes == 1:
        return [*command, "--standalone", _RANK]
    address, port, rank = _place(nodes, environment)
    first = ["--master-addr", address, "--master-port", port]
    return [*command, "--nnodes", str(nodes), "--node-rank", rank, *first, _RANK]


def node_rank(nodes: int, environment: Mapping[str, str]) -> int:
    """Number of this machine, from 0."""
    return 0 if nodes == 1 else int(_place(nodes, environment)[2])


def _place(nodes: int, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Address and port of the first machine, and the number of this one."""
    if "SLURM_JOB_ID" in environment and "SLURM_NODEID" in environment:
        hosts, rank = environment.get("SLURM_JOB_NODELIST", ""), environment["SLURM_NODEID"]
        found = environment.get("SLURM_JOB_NUM_NODES", str(nodes))
        if found != str(nodes):
            raise ConfigError(f"--nodes is {nodes}, but the SLURM job has {found} nodes")
        port = environment.get("MASTER_PORT", str(_FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS))
        return first_host(hosts), port, rank
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"--nodes {nodes} needs {', '.join(missing)} in the environment: the address and a free port of the first "
            "machine, and the number of this one from 0; under SLURM: srun --ntasks-per-node 1 nast-s2x train ..."
        )
    return environment["MASTER_ADDR"], environment["MASTER_PORT"], environment["NODE_RANK"]


def first_host(hosts: str) -> str:
    """First name of a SLURM list such as ``gpu[03-05,9],login1``.

    Raises:
        ConfigError: not such a list.
    """
    match = re.match(r"([\w.-]+?)(?:\[(\w+)[^\]]*\]([\w.-]*))?(?:,|$)", hosts)
    if match is None:
        raise ConfigError(f"SLURM_JOB_NODELIST is not a list of hosts: {hosts!r}")
    head, number, tail = match.groups()
    return head + (number or "") + (tail or "")
