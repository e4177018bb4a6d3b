"""fairseq inside a test: training, generation, and task, model and criterion of a command line."""

from __future__ import annotations

import io
import json
import logging
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

TINY = [
    "--task", "nast_s2x", "--criterion", "nast_ctc_nmla", "--chunk-ms", "320,640,offline", "--max-source-seconds", "20",
    "--conv-channels", "4", "--encoder-dim", "16", "--encoder-layers", "1", "--encoder-heads", "2",
    "--encoder-ffn-dim", "16", "--decoder-dim", "16", "--decoder-layers", "1", "--decoder-heads", "2",
    "--decoder-ffn-dim", "16", "--unit-layers", "1", "--max-tokens", "2000", "--optimizer", "adam", "--lr", "0.002",
    "--clip-norm", "10", "--cpu", "--seed", "3", "--log-format", "json", "--log-interval", "1",
    "--no-epoch-checkpoints", "--no-progress-bar", "--best-checkpoint-metric", "bleu",
    "--maximize-best-checkpoint-metric", "--num-workers", "0",  # ending a worker process can take 5 s
]  # fmt: skip


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.getMessage()))


class Run:
    """Log of a training."""

    def __init__(self, records: list[tuple[str, str]]) -> None:
        self.messages = [message for _, message in records]
        self.updates = [json.loads(message) for name, message in records if name == "train_inner"]
        self.validations = [json.loads(message) for name, message in records if name == "valid"]


def settings(data: Path, *flags: str, generation: bool = False) -> Any:
    """fairseq's configuration of a command line (the last of equal flags wins)."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    from nast_s2x.tasks import register

    register()
    parser = options.get_generation_parser() if generation else options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [str(data), *flags]))


def train(data: Path, save: Path, *flags: str) -> Run:
    """Train in this process as ``fairseq-train`` does; returns what it logged."""
    from fairseq import checkpoint_utils
    from fairseq_cli import train as fairseq_train

    cfg = settings(data, *TINY, "--save-dir", str(save), *flags)
    handler = _Messages()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        fairseq_train.main(cfg)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        # fairseq keeps the best score in an attribute of a function, which would leak into the next run.
        if hasattr(checkpoint_utils.save_checkpoint, "best"):
            del checkpoint_utils.save_checkpoint.best
    return Run(handler.records)


def generate(data: Path, checkpoint: Path, *flags: str) -> list[str]:
    """Lines that ``fairseq-generate`` prints."""
    from fairseq_cli import generate as fairseq_generate

    flags = ("--task", "nast_s2x", "--path", str(checkpoint), "--cpu", "--no-progress-bar", *flags)
    cfg = settings(data, *flags, generation=True)
    output = io.StringIO()
    with redirect_stdout(output):
        fairseq_generate._main(cfg, output)
    return output.getvalue().splitlines()


def build_task(data: Path, *flags: str) -> tuple[Any, Any, Any]:
    """Task, model and criterion of a command line."""
    from fairseq import tasks

    cfg = settings(data, *TINY, *flags)
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)
