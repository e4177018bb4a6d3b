"""What `nast-s2x train` shows of fairseq's output: progress, losses, validations with samples, warnings; no dumps."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_training_recipes import fake_fairseq, recipe_of

from nast_s2x.errors import NastError
from nast_s2x.training import launch
from nast_s2x.training.output import StageOutput, last_lines

TIME = "2026-11-29 19:43:31 |"
DUMPS = [
    f"{TIME} INFO | fairseq_cli.train | {{'_name': None, 'common': {{'_name': None, 'no_progress_bar': True}}}}",
    f"{TIME} INFO | fairseq_cli.train | NastFairseqModel(",
    "  (encoder): ChunkEncoder(",
    "UserWarning: something is deprecated",
]
BEGIN = f"{TIME} INFO | fairseq.trainer | begin training epoch 1"
SAMPLES = [
    f"{TIME} INFO | nast_s2x.tasks.nast_s2x | {text}"
    for text in (
        "T-0\tthe cat", "H-0 (320)\tthe", "H-0 (offline)\tthe cat",
        "T-7\ta dog", "H-7 (320)\t", "H-7 (offline)\ta",
        "T-9\tnot shown", "H-9 (320)\tnot shown", "H-9 (offline)\tnot shown",
    )
]  # fmt: skip


def update(number: int, loss: float) -> str:
    return (
        f"{TIME} INFO | train_inner | epoch 001:     50 / 407 loss={loss}, asr_loss=10.8, text_accuracy=42.47, "
        f"ups=1.74, num_updates={number}, lr=0.00025, clip=72, train_wall=28, wall=31"
    )


def validation(number: int) -> str:
    return (
        f"{TIME} INFO | valid | epoch 001 | valid on 'dev' subset | loss 3.25 | asr_loss 1 | bleu_320 10.5 | "
        f"bleu_offline 14.5 | bleu 12.5 | wps 10 | num_updates {number} | best_bleu 13"
    )


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> StageOutput:
    """Output whose lines are in ``shown.lines``."""
    monkeypatch.setattr("nast_s2x.progress.LINE_SECONDS", 0.0)
    lines: list[str] = []
    result = StageOutput("ctc", ["--max-update", "7", "--warmup-updates", "400", "--max-update", "2000"], lines.append)
    result.lines = lines  # type: ignore[attr-defined]
    return result


def feed(shown: StageOutput, *lines: str) -> list[str]:
    for line in lines:
        shown.line(line + "\n")
    shown.close()
    return shown.lines  # type: ignore[attr-defined]


def test_progress_has_share_loss_and_time_left(shown: StageOutput, capsys: pytest.CaptureFixture[str]) -> None:
    assert feed(shown, *DUMPS, BEGIN, update(500, 9.17251), BEGIN, update(1000, 8.0)) == []
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == "" and all(line.startswith("ctc: ") for line in lines)
    assert lines[0].startswith("ctc:   0%") and " 25%" in lines[1] and "loss 9.173" in lines[1]
    assert " 50%" in lines[-1] and "1000/2000" in lines[-1] and "loss 8.000" in lines[-1] and "<" in lines[-1]


def test_a_resumed_stage_begins_at_its_update(shown: StageOutput, capsys: pytest.CaptureFixture[str]) -> None:
    feed(shown, f"{TIME} INFO | fairseq.trainer | Loaded checkpoint x.pt (epoch 3 @ 1500 updates)", BEGIN)
    assert "1500/2000" in capsys.readouterr().err


def test_validations_with_two_samples(shown: StageOutput) -> None:
    assert feed(shown, *SAMPLES, validation(500), *SAMPLES[:3], validation(1000))[:8] == [
        "ctc, update 500: BLEU 12.5 (320: 10.5, offline: 14.5), loss 3.25 on dev",
        "    reference: the cat",
        "    320:       the",
        "    offline:   the cat",
        "    reference: a dog",
        "    320:       (empty)",
        "    offline:   a",
        "ctc, update 1000: BLEU 12.5 (320: 10.5, offline: 14.5), loss 3.25 on dev",
    ]
    assert len(shown.lines) == 11 and shown.best == "best BLEU 13"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("updates", "is_noted"), [(1399, False), (1400, True)])
def test_outputs_of_blanks_only_are_noted_after_the_warmup(shown: StageOutput, updates: int, is_noted: bool) -> None:
    lines = feed(shown, *(line.partition("\t")[0] + "\t" for line in SAMPLES), validation(updates))
    assert any("blanks only" in line for line in lines) == is_noted


def test_the_json_format_is_read_too(shown: StageOutput, capsys: pytest.CaptureFixture[str]) -> None:
    lines = feed(
        shown,
        f'{TIME} INFO | train_inner | {{"epoch": 1, "loss": "9.17", "num_updates": "500", "lr": "0.1"}}',
        f'{TIME} INFO | valid | {{"epoch": 1, "valid_loss": "3", "valid_unit_bleu": "4", "valid_num_updates": "500"}}',
    )
    assert lines == ["ctc, update 500: unit BLEU 4, loss 3"]
    assert "loss 9.170" in capsys.readouterr().err


def test_warnings_are_shown(shown: StageOutput) -> None:
    warning = f"{TIME} WARNING | nast_s2x.tasks.dataset | train: 26 of 10000 samples left out"
    assert feed(shown, warning) == ["warning: train: 26 of 10000 samples left out"]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            "Traceback:\n  File x\nnast_s2x.errors.ConfigError: --lr must be positive\n-- end --",
            "--lr must be positive",
        ),
        ("Killed", "first\nKilled"),
    ],
)
def test_the_error_of_a_stage_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, message: str) -> None:
    fake_fairseq(tmp_path, monkeypatch, f"import sys\nprint('first')\nprint({end!r})\nsys.exit(1)")
    with pytest.raises(NastError, match="ended with status 1") as error:
        launch.run_recipe(recipe_of(tmp_path), launch.Run(tmp_path, tmp_path / "save"), lambda line: None)
    assert str(error.value).endswith(message)


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 100_000 + "\n" + "".join(f"line {number}\n" for number in range(100)))
    assert last_lines(log) == [f"line {number}" for number in range(88, 100)]
