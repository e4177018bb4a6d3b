"""Parts of the fairseq plugin: policies, dataset, criterion, scores, and checkpoints that try to run code."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("fairseq")

from plugin_data import UNITS, make_data_folder  # noqa: E402
from plugin_runs import TINY, build_task, generate, settings, train  # noqa: E402

from nast_s2x.batches import TargetBatch  # noqa: E402
from nast_s2x.checkpoints.fairseq import load_checkpoint  # noqa: E402
from nast_s2x.chunking import ChunkPolicy, SlotRates  # noqa: E402
from nast_s2x.errors import ConfigError  # noqa: E402
from nast_s2x.metrics.quality import bleu, bleu_counts, bleu_of_counts  # noqa: E402
from nast_s2x.tasks.dataset import LabelArrays, build_specaugment  # noqa: E402
from nast_s2x.tasks.joining import JoinedRows, join_labels  # noqa: E402
from nast_s2x.tasks.policies import draw_policy, extremes  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"), train=12)


# --- policies -----------------------------------------------------------------------------------------------------


def test_chunk_sizes_are_sorted_and_look_ahead_follows_them() -> None:
    policies = ChunkPolicy.parse("offline,640,320,640")
    assert [policy.name for policy in policies] == ["320", "640", "offline"]
    assert [policy.lookahead_ms for policy in policies] == [320, 640, 0]
    assert [policy.lookahead_ms for policy in ChunkPolicy.parse("320,640", lookahead_ms=160)] == [160, 160]
    assert [policy.name for policy in extremes(policies)] == ["320", "offline"]
    assert [policy.name for policy in extremes(policies[:1])] == ["320"]
    with pytest.raises(ValueError, match="'fast'"):
        ChunkPolicy.parse("fast")
    with pytest.raises(ValueError, match="at least one"):
        ChunkPolicy.parse(" , ")


def test_drawn_geometry_depends_on_seed_and_update_only() -> None:
    policies = ChunkPolicy.parse("320,640,1280,offline")
    drawn = [draw_policy(policies, 1, update) for update in range(400)]
    assert drawn == [draw_policy(policies, 1, update) for update in range(400)]
    assert drawn != [draw_policy(policies, 2, update) for update in range(400)]
    counts = Counter(policy.name for policy in drawn)
    assert set(counts) == {"320", "640", "1280", "offline"} and min(counts.values()) > 60


# --- dataset --------------------------------------------------------------------------------------------------------


def test_labels_in_one_array() -> None:
    """Defect 23: whatever the number of rows, two arrays; slots count repeated neighbours inside a row alone."""
    rows = [[0, 5, 5, 5, 6, 2], None, [2], [2, 2], [], [4]]
    labels = LabelArrays(rows)
    assert labels.slots_needed().tolist() == list(TargetBatch.pad(rows).needed.host)
    assert labels.slots_needed().tolist() == [8, 0, 1, 3, 0, 1] and len(labels) == 6
    assert [None if row is None else row.tolist() for row in map(labels.__getitem__, range(6))] == [
        [0, 5, 5, 5, 6, 2],
        None,
        [2],
        [2, 2],
        None,
        [4],
    ]
    assert LabelArrays([]).slots_needed().tolist() == [] and LabelArrays([None]).slots_needed().tolist() == [0]
    many = LabelArrays([7] * 40 for _ in range(1000))
    assert many.nbytes == 1000 * (40 * 4 + 8) + 8


def test_samples_that_cannot_be_learned_are_left_out_of_training_only(data: Path, tmp_path: Path) -> None:
    folder = make_data_folder(tmp_path / "data", train=6, valid=3)
    rows = (folder / "train.tsv").read_text(encoding="utf-8").splitlines()
    cells = rows[1].split("\t")
    cells[4] = " ".join(["house"] * 80)
    rows[1] = "\t".join(cells)
    cells = rows[2].split("\t")
    cells[2] = "5000"
    rows[2] = "\t".join(cells)
    for split in ("train", "valid"):
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    task, _, _ = build_task(folder, "--arch", "nast_s2t_tiny")
    task.load_dataset("train")
    task.load_dataset("valid")
    assert task.dataset("train").left_out == {"with fewer text slots than labels": 1, "longer than 20 s": 1}
    assert len(task.dataset("train")) == 4 and len(task.dataset("valid")) == 6


def test_a_training_split_without_usable_samples(data: Path) -> None:
    task, _, _ = build_task(data, "--arch", "nast_s2t_tiny", "--max-source-seconds", "1")
    with pytest.raises(ConfigError, match=r"train: none of the 12 samples can be used .*\(12 longer than 1 s\)"):
        task.load_dataset("train")


def test_every_sample_is_in_a_batch(data: Path) -> None:
    task, _, _ = build_task(data, "--arch", "nast_s2t_tiny")
    task.load_dataset("train")
    dataset = task.dataset("train")
    indices = dataset.ordered_indices()
    batches = dataset.batch_by_size(indices, max_tokens=3000, required_batch_size_multiple=8)
    assert sorted(index for batch in batches for index in batch) == list(range(len(dataset)))
    assert all(len(batch) * dataset.frames[batch].max() <= 3000 for batch in batches)


def test_augmentation_follows_seed_epoch_and_index(data: Path) -> None:
    task, _, _ = build_task(data, "--arch", "nast_s2t_tiny")
    task.load_dataset("train")
    dataset = task.dataset("train")
    first = dataset[3]["features"]
    assert torch.equal(first, dataset[3]["features"])
    dataset.set_epoch(2)
    assert not torch.equal(first, dataset[3]["features"])
    dataset.set_epoch(1)
    assert torch.equal(first, dataset[3]["features"])


def test_joined_samples_are_rows_one_after_the_other(data: Path) -> None:
    task, _, _ = build_task(data, "--arch", "nast_s2s_tiny", "--join-samples", "3", "--specaugment", "off")
    task.load_dataset("train")
    task.load_dataset("valid")
    dataset, alone = task.dataset("train"), task.dataset("valid")
    parts = [dataset[index]["places"] for index in range(len(dataset))]
    assert {len(places) for places in parts} == {1, 2, 3} and len({places[0] for places in parts}) == len(dataset)
    longest = max(range(len(dataset)), key=lambda index: len(parts[index]))
    sample = dataset[longest]
    rows = [dataset.table.audio[place].features() for place in parts[longest]]
    np.testing.assert_array_equal(sample["features"].numpy(), np.concatenate(rows))
    assert dataset.frames[longest] == len(sample["features"]) == dataset.num_tokens(longest)
    batch = dataset.collater([sample, dataset[(longest + 1) % len(dataset)]])
    texts = [task.labels.decode(dataset.table.labels.text[place]) for place in parts[longest]]
    learned = batch["text"]["labels"][0]
    assert task.labels.decode(learned.tolist()) == " ".join(texts)
    assert (learned == 0).sum() == (learned == 2).sum() == 1  # <s> and </s> once
    units = [dataset.table.labels.units[place][1:-1].tolist() for place in parts[longest]]
    count = sum(map(len, units))
    assert batch["units"]["labels"][0, 1 : 1 + count].tolist() == [unit for part in units for unit in part]
    dataset.set_epoch(2)
    assert [dataset[index]["places"] for index in range(len(dataset))] != parts
    dataset.set_epoch(1)
    assert [dataset[index]["places"] for index in range(len(dataset))] == parts
    assert all(len(alone[index]["places"]) == 1 for index in range(len(alone)))  # validation: every row alone


def test_rows_are_joined_only_where_the_sample_can_be_learned() -> None:
    frames, text, units = np.full(200, 100), np.full(200, 6), np.tile([0, 40], 100)
    rates = SlotRates()  # 13 text slots for 100 frames, 25 for 200, 38 for 300

    def sizes(**changes: Any) -> tuple[Counter[int], JoinedRows]:
        given = {"text": text, "units": units, "most": 3, "max_frames": 1000, "rates": rates, "seed": 1} | changes
        joined = JoinedRows(frames, **given)
        rows = [joined.rows(index, 1) for index in range(200)]
        assert joined.frames(1).tolist() == [100 * len(part) for part in rows]
        return Counter(map(len, rows)), joined

    every, joined = sizes()
    assert min(every[1], every[2], every[3]) > 20
    assert all(len({row % 2 for row in joined.rows(index, 1)}) == 1 for index in range(200))  # units or none
    assert set(sizes(max_frames=200)[0]) == {1, 2} and set(sizes(max_frames=199)[0]) == {1}
    assert set(sizes(text=np.full(200, 12))[0]) == {1, 2, 3}  # 12 + 12 + 12 and a blank at each seam
    assert set(sizes(text=np.full(200, 13))[0]) == {1}
    assert sizes(most=1)[0] == {1: 200}


def test_joined_labels_need_all_of_their_rows() -> None:
    first, second = np.array([0, 7, 8, 2]), np.array([0, 8, 9, 2])
    assert join_labels([first, second, first]).tolist() == [0, 7, 8, 8, 9, 7, 8, 2]
    assert join_labels([first]) is first
    assert join_labels([first, None]) is None and join_labels([None]) is None


def test_specaugment_flag(data: Path) -> None:
    from nast_s2x.corpus.data_folder import DataFolder

    config = DataFolder.load(data)
    assert build_specaugment("off", config, ["specaugment"]) is None
    assert build_specaugment(None, config, ["global_cmvn"]) is None
    assert build_specaugment(None, config, ["specaugment"]).freq_width == 8
    assert build_specaugment("2x10,3x40", config, []).time_masks == 3
    with pytest.raises(ValueError, match="1x27,1x100"):
        build_specaugment("27", config, [])


# --- criterion ------------------------------------------------------------------------------------------------------


def batch_of(task: Any, indices: list[int]) -> dict[str, Any]:
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    return dataset.collater([dataset[index] for index in indices])


def without(targets: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Targets of a batch with none in some rows."""
    kept = [
        None if row in rows else labels[:length].numpy()
        for row, (labels, length) in enumerate(zip(targets["labels"], targets["lengths"], strict=True))
    ]
    return TargetBatch.pad(kept).to_dict()


def test_loss_of_a_batch_with_some_units_is_that_of_its_parts(data: Path) -> None:
    task, model, criterion = build_task(data, "--arch", "nast_s2s_tiny", "--label-smoothing", "0")
    model.eval()
    sample = batch_of(task, [0, 1, 2])
    _, full, _ = criterion.compute(model, sample, task.policies[0], update=0)
    partial = copy.deepcopy(sample)
    partial["units"] = without(partial["units"], [1])
    _, log, _ = criterion.compute(model, partial, task.policies[0], update=0)
    ones = [criterion.compute(model, batch_of(task, [i]), task.policies[0], update=0)[1] for i in (0, 2)]
    assert float(log["unit_loss"]) == pytest.approx(np.mean([float(one["unit_loss"]) for one in ones]), rel=1e-4)
    assert float(log["text_loss"]) == pytest.approx(float(full["text_loss"]), rel=1e-6)


@pytest.mark.parametrize("rows", [[], [1]])
def test_a_batch_with_few_or_no_units_trains_every_parameter(data: Path, rows: list[int]) -> None:
    task, model, criterion = build_task(data, "--arch", "nast_s2s_tiny")
    sample = batch_of(task, [0, 1, 2])
    sample["units"] = without(sample["units"], [row for row in range(3) if row not in rows]) if rows else None
    model.train()
    loss, log, output = criterion.compute(model, sample, task.policies[0], update=0)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    if rows:
        shown = output.unit_glance_mask.any(1)
        assert not shown[0] and not shown[2]
    else:
        assert float(log["unit_loss"]) == 0.0
    assert {key for key in log if key.startswith("unit_")} >= {"unit_slots", "unit_ratio", "unit_loss"}


def test_glancing_is_off_in_validation_and_at_ratio_zero(data: Path) -> None:
    task, model, criterion = build_task(data, "--arch", "nast_s2s_tiny", "--text-glancing", "0")
    sample = batch_of(task, [0, 1])
    model.train()
    output = criterion.compute(model, sample, task.policies[0], update=0)[2]
    # Units are glanced although text is not.
    assert not (output.text_glance_mask is not None and output.text_glance_mask.any())
    assert output.unit_glance_mask is not None
    model.eval()
    output = criterion.compute(model, sample, task.policies[0], update=0)[2]
    assert output.text_glance_mask is None and output.unit_glance_mask is None


def test_units_outside_the_vocabulary_are_named(data: Path, tmp_path: Path) -> None:
    folder = make_data_folder(tmp_path / "data", train=3)
    text = (folder / "train.tsv").read_text(encoding="utf-8").splitlines()
    cells = text[2].split("\t")
    cells[5] = f"0 {UNITS}"
    text[2] = "\t".join(cells)
    (folder / "train.tsv").write_text("\n".join(text) + "\n", encoding="utf-8")
    task, _, _ = build_task(folder, "--arch", "nast_s2s_tiny")
    with pytest.raises(ValueError, match=f"train-1.*{UNITS}"):
        task.load_dataset("train")


def test_unit_architecture_needs_units(tmp_path: Path) -> None:
    folder = make_data_folder(tmp_path / "data", train=2, units=False)
    with pytest.raises(ValueError, match="num_units"):
        build_task(folder, "--arch", "nast_s2s_tiny")


# --- scores ---------------------------------------------------------------------------------------------------------


def test_bleu_of_summed_counts_is_corpus_bleu() -> None:
    from sacrebleu.metrics import BLEU

    hypotheses = ["the cat eats the red fish today", "a dog", "", "the big house is here"]
    references = ["the cat eats a red fish today", "a small dog sleeps", "sea", "the big house was here"]
    sums: Counter[str] = Counter()
    for start, stop in ((0, 1), (1, 4), (4, 4)):
        sums.update(bleu_counts("x", hypotheses[start:stop], references[start:stop], "13a"))
    expected = BLEU().corpus_score(hypotheses, [references]).score
    assert bleu_of_counts("x", sums) == pytest.approx(expected, abs=1e-6) and expected > 10
    assert bleu_of_counts("x", {}) == 0.0


def test_validation_takes_the_tokenizer_of_the_target_language(data: Path, tmp_path: Path) -> None:
    folder = make_data_folder(tmp_path / "data", train=2)
    assert build_task(folder, "--arch", "nast_s2t_tiny")[0].text_rules.tokenizer == "13a"
    with (folder / "config.yaml").open("a", encoding="utf-8") as config:
        config.write("target_lang: zh\n")
    task, _, _ = build_task(folder, "--arch", "nast_s2t_tiny")
    texts, references = ["今天天气很好", "我用GPT"], ["今天天气很好。", "我用GPT"]
    counts = task._bleu_counts("320", {"references": references}, texts, None)
    assert counts == bleu_counts("_bleu_320", texts, references, "zh")
    assert bleu_of_counts("_bleu_320", counts) > 80 > bleu(texts, references).value


# --- flags and checkpoints ------------------------------------------------------------------------------------------


def test_every_flag_has_a_help_text() -> None:
    from nast_s2x.criterions.nast_ctc_nmla import NastCriterionConfig
    from nast_s2x.models.nast_s2x import NastModelConfig
    from nast_s2x.tasks.nast_s2x import NastTaskConfig

    for config in (NastCriterionConfig, NastModelConfig, NastTaskConfig):
        for name, field in config.__dataclass_fields__.items():
            is_copy = str(field.default).startswith("${")  # of another flag
            assert name == "_name" or is_copy or len(field.metadata.get("help", "")) > 10, name


def test_architectures_have_their_sizes(data: Path) -> None:
    for arch, dim, unit_decoder in (("nast_s2t", 512, False), ("nast_s2s", 512, True), ("nast_s2s_tiny", 128, True)):
        cfg = settings(data, *TINY[:2], "--arch", arch, "--criterion", "nast_ctc_nmla", "--dropout", "0.3")
        assert (cfg.model.encoder_dim, cfg.model.unit_decoder, cfg.model.dropout) == (dim, unit_decoder, 0.3)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("way", ["resume", "finetune", "encoder", "generate"])
def test_checkpoints_never_run_code(data: Path, tmp_path: Path, way: str) -> None:
    proof = tmp_path / "executed"
    checkpoint = tmp_path / "save" / ("checkpoint_last.pt" if way == "resume" else "other.pt")
    checkpoint.parent.mkdir()
    torch.save({"model": {}, "cfg": {"note": Malicious(proof)}, "args": None}, checkpoint)
    flags = ["--arch", "nast_s2t_tiny", "--max-update", "1"]
    ways = {"finetune": ["--finetune-from-model"], "encoder": ["--load-pretrained-encoder-from"]}
    with pytest.raises(Exception, match="(?i)weights.only|inert"):
        if way == "generate":
            generate(data, checkpoint, "--gen-subset", "test")
        else:
            train(data, checkpoint.parent, *flags, *(ways[way] + [str(checkpoint)] if way in ways else []))
    assert not proof.exists()
    torch.load(checkpoint, weights_only=False)  # the file does what it is feared for
    assert proof.exists()


def test_released_checkpoint_starts_a_training(tmp_path: Path) -> None:
    """Released form: settings in a Namespace, tied weights listed twice, the authors' paths, longer position tables."""
    released = Path(__file__).parent / "fixtures" / "parity" / "published_checkpoint"
    folder = make_data_folder(tmp_path / "data", train=8)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    for name in ("spm.model", "spm.txt"):
        shutil.copy(released / name, folder / name)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "num_units": 100}), encoding="utf-8")
    sizes = ["--conv-channels", "64", "--encoder-dim", "64", "--decoder-dim", "64", "--encoder-ffn-dim", "128"]
    flags = ["--arch", "nast_s2s_tiny", *sizes, "--decoder-ffn-dim", "128", "--max-update", "1", "--lr", "0"]
    start = ["--finetune-from-model", str(released / "checkpoint.pt")]
    run = train(folder, tmp_path / "save", *flags, *start, "--disable-validation", "--max-source-seconds", "30")
    assert len(run.updates) == 1
    trained = torch.load(tmp_path / "save" / "checkpoint_last.pt", weights_only=True)["model"]
    published = load_checkpoint(released / "checkpoint.pt")["model"]
    assert trained["decoder.embed_positions.weight"].size(0) == 375 + 2
    assert trained["unit_decoder.embed_positions.weight"].size(0) == 375 * 6 + 2
    for name, value in trained.items():
        rows = min(len(value), len(published[name]))
        assert torch.equal(value[:rows], published[name][:rows]), name
