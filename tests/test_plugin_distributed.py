"""Two processes over gloo on the CPU: they train, resume, and their gradient is the mean of the shards' gradients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq")

from plugin_data import make_data_folder  # noqa: E402
from plugin_runs import TINY, settings  # noqa: E402

from nast_s2x.checkpoints.fairseq import load_checkpoint  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# Plain gradient descent with a step of 1: the change of a weight is its gradient.
FLAGS = [
    *TINY, "--arch", "nast_s2s_tiny", "--optimizer", "sgd", "--lr", "1.0", "--clip-norm", "0", "--max-tokens", "1000",
    "--text-glancing", "0.5", "--unit-glancing", "0.3", "--save-interval-updates", "1", "--skip-bleu",
    "--best-checkpoint-metric", "loss",
]  # fmt: skip


def run_two_processes(data: Path, save: Path, updates: int) -> str:
    """Train with one process per rank; returns what rank 0 printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = "from fairseq_cli.train import cli_main; cli_main()"
    shared = [
        "--user-dir", str(ROOT / "nast_s2x"), "--save-dir", str(save), "--max-update", str(updates),
        "--distributed-world-size", "2", "--distributed-no-spawn", "--distributed-backend", "gloo",
        "--distributed-init-method", f"tcp://127.0.0.1:{port}", "--ddp-backend", "legacy_ddp",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(data), *FLAGS, *shared, "--distributed-rank", str(rank)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)[-3000:]
    return outputs[0]


def mean_of_shard_gradients(data: Path, start: dict[str, torch.Tensor], update: int) -> dict[str, torch.Tensor]:
    """Gradients of the two shards of one update, computed one after the other in this process."""
    from fairseq import tasks, utils

    cfg = settings(data, *FLAGS)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    model.load_state_dict(start)
    criterion = task.build_criterion(cfg.criterion).train()
    task.load_dataset("train")

    class Backward:
        def backward(self, loss: torch.Tensor) -> None:
            loss.backward()

    for shard in range(2):
        batches = task.get_batch_iterator(
            task.dataset("train"), max_tokens=cfg.dataset.max_tokens, required_batch_size_multiple=8, seed=3,
            num_shards=2, shard_id=shard, epoch=1, disable_iterator_cache=True,
        ).next_epoch_itr(shuffle=True)  # fmt: skip
        for _ in range(update + 1):
            sample = next(batches)
        utils.set_torch_seed(3 + update)
        task.train_step(sample, model, criterion, Backward(), update)
    return {name: parameter.grad / 2 for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_two_processes_train_resume_and_average_gradients(tmp_path: Path) -> None:
    data = make_data_folder(tmp_path / "data", train=40, valid=2)
    save = tmp_path / "save"
    run_two_processes(data, save, updates=1)
    log = run_two_processes(data, save, updates=2)
    assert "Loaded checkpoint" in log and "@ 1 updates" in log

    before, after = (load_checkpoint(save / f"checkpoint_1_{update}.pt")["model"] for update in (1, 2))
    gradients = mean_of_shard_gradients(data, before, update=1)
    assert gradients.keys() >= {"encoder.conv_layers.conv.0.weight", "unit_decoder.embed_tokens.weight"}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, value in before.items():
        change = value - after[name]
        torch.testing.assert_close(change, gradients.get(name, torch.zeros_like(value)), rtol=1e-3, atol=1e-5 * largest)
