"""The fairseq task: one for recognition, text and speech targets, for any list of chunk sizes."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, MISSING, DictConfig, open_dict
from torch import Tensor, nn

# fairseq imports tasks/ and models/ of a user directory, but not criterions/.
import nast_s2x.criterions.nast_ctc_nmla  # noqa: F401
from nast_s2x.checkpoints.start import load_pretrained_encoder, start_from
from nast_s2x.chunking import (
    DEFAULT_TRAINING_CHUNKS,
    FRAMES_PER_SECOND,
    ChunkGeometry,
    ChunkPolicy,
    SlotRates,
)
from nast_s2x.corpus import Utterance
from nast_s2x.corpus.data_folder import DataFolder, check_split
from nast_s2x.corpus.manifest import Problem, TableReader, raise_problems
from nast_s2x.corpus.utterance import unit_string
from nast_s2x.errors import ConfigError, check_whole_number
from nast_s2x.labels import BLANK, NUM_SPECIALS, TextLabels, UnitLabels
from nast_s2x.metrics.quality import bleu_counts, bleu_of_counts
from nast_s2x.metrics.text import rules_of
from nast_s2x.models import nast_s2x as _models  # noqa: F401 - registers the model
from nast_s2x.network import NastOutput
from nast_s2x.processes import follow_parent
from nast_s2x.tasks import saving
from nast_s2x.tasks.dataset import NastDataset
from nast_s2x.tasks.generator import CtcGreedyGenerator, best_labels
from nast_s2x.tasks.policies import draw_policy, extremes

logger = logging.getLogger(__name__)
follow_parent()
saving.install()

TARGET_TEXT_CHOICES = ChoiceEnum(["source", "target"])


@dataclass
class NastTaskConfig(FairseqDataclass):
    """Flags of the task. Names of the published system are given where they differ."""

    data: str = field(
        default=MISSING,
        metadata={
            "help": "data folder with config.yaml and a SPLIT.tsv for each split. This task makes the batches of each "
            "epoch anew, and each of several processes reads checkpoints itself (--load-checkpoint-on-all-dp-ranks)"
        },
    )
    config_yaml: str = field(default="config.yaml", metadata={"help": "name of the configuration in the data folder"})
    target_text: TARGET_TEXT_CHOICES = field(
        default="target",
        metadata={
            "help": "what the text decoder learns: target, the translation (stages 1 and 2), or source, the transcript "
            "(stage 0, speech recognition)"
        },
    )
    chunk_ms: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "chunk sizes in ms, and/or offline, separated by commas; training draws one for each update, "
            "validation uses the smallest and the largest, generation the largest (published: --main-context, in "
            f"frames of 10 ms); default: {DEFAULT_TRAINING_CHUNKS} in training, those of the training in generation"
        },
    )
    lookahead_ms: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={"help": "look-ahead of a chunk in ms; default: as long as the chunk (published: --right-context)"},
    )
    wait_chunks: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "chunks by which the decoders follow the encoder (published: --wait-until); default: 0 in "
            "training, that of the training in generation"
        },
    )
    left_ms: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "past audio in ms that stays visible to a chunk at least, in whole chunks, or unlimited; training "
            "draws one of a list such as unlimited,20000,10000 for each update; default: unlimited"
        },
    )
    drop_repeats: int = field(
        default=0,
        metadata={
            "help": "in validation, remove unit sequences of up to this length that repeat the previous one, as "
            "`nast-s2x export --drop-repeats` does"
        },
    )
    pooling: int = field(default=2, metadata={"help": "encoder frames of 40 ms per text slot (published: --unit-size)"})
    text_upsample: int = field(
        default=1, metadata={"help": "text slots per pooled encoder state (published: --src-upsample-ratio)"}
    )
    unit_upsample: int = field(
        default=6, metadata={"help": "unit slots per text slot (published: --hidden-upsample-ratio)"}
    )
    max_source_seconds: float = field(
        default=60.0,
        metadata={"help": "longest source in seconds: sizes the position tables; longer training samples are left out"},
    )
    specaugment: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "SpecAugment: MASKSxWIDTH over frequency, MASKSxWIDTH over time, as 1x27,1x100 (published); off: "
            "none; default: the masks of config.yaml"
        },
    )
    join_samples: int = field(
        default=1,
        metadata={
            "help": "rows of a training sample at most: each epoch draws how many rows follow one another in a sample, "
            "for streams longer than the rows of the corpus; 1: every row alone"
        },
    )
    skip_bleu: bool = field(default=False, metadata={"help": "validate by losses only, without BLEU"})
    print_samples: int = field(default=3, metadata={"help": "validation samples whose translations are logged"})
    seed: int = II("common.seed")


@register_task("nast_s2x", dataclass=NastTaskConfig)
class NastTask(FairseqTask):
    """Speech to text and units with NAST-S2X (Ma et al., 2024)."""

    cfg: NastTaskConfig

    def __init__(self, cfg: NastTaskConfig) -> None:
        super().__init__(cfg)
        check_whole_number("join_samples", cfg.join_samples, 1)
        self.policies = ChunkPolicy.parse(
            cfg.chunk_ms or DEFAULT_TRAINING_CHUNKS, cfg.lookahead_ms, cfg.wait_chunks or 0, cfg.left_ms
        )
        self.rates = SlotRates(pooling=cfg.pooling, text_upsample=cfg.text_upsample, unit_upsample=cfg.unit_upsample)
        for policy in self.policies:
            ChunkGeometry(self.rates, policy)  # checks that the sizes fit the rates
        self.data_config = DataFolder.load(Path(cfg.data) / cfg.config_yaml)
        self.text_rules = rules_of(self.data_config.target_lang)
        if self.text_rules.note:
            logger.warning(self.text_rules.note)
        self.labels = TextLabels.load(self.data_config.vocab_path, self.data_config.spm_path)
        units = self.data_config.num_units
        self.unit_labels = UnitLabels(units, self.data_config.unit_hash, cfg.drop_repeats) if units else None
        self.trains_units = False
        self._dictionary = _fairseq_dictionary(self.labels)
        self._printed = 0
        _adapt_settings(cfg)

    @property
    def unit_vocab(self) -> int:
        """Labels of the unit decoder: 4 specials, the units, blank; 0 where the data has no units."""
        return 0 if self.unit_labels is None else self.unit_labels.size

    @property
    def target_dictionary(self) -> Dictionary:
        """The labels as a fairseq dictionary, ``<blank>`` last."""
        return self._dictionary

    @property
    def max_frames(self) -> int:
        """Longest source in feature frames."""
        return int(self.cfg.max_source_seconds * FRAMES_PER_SECOND)

    def max_positions(self) -> int:
        """Longest source in feature frames; fairseq refuses longer ones outside training."""
        return self.max_frames

    def load_dataset(self, split: str, **_: Any) -> None:
        """Load SPLIT.tsv (several, separated by commas); names that begin with ``train`` are training splits."""
        train = split.startswith("train")
        names = split.split(",")
        self.datasets[split] = NastDataset(
            (row for name in names for row in self._read_split(name)),
            self.data_config,
            self.labels,
            self.rates,
            train=train,
            max_frames=self.max_frames,
            target_text=str(self.cfg.target_text),
            unit_labels=self.unit_labels,
            seed=self.cfg.seed,
            split=names[0],
            specaugment=self.cfg.specaugment,
            join_samples=self.cfg.join_samples,
        )
        logger.info(f"{split}: {len(self.datasets[split])} samples")

    def _read_split(self, name: str) -> Iterator[Utterance]:
        """Rows of a table, one after the other; all of its bad rows in one error."""
        table = TableReader(
            Path(self.cfg.data) / f"{name}.tsv",
            required=("id", "audio", "n_frames"),
            root=self.data_config.audio_root,
            whole=True,
        )
        problems, count = [], 0
        for _, row in table:
            if isinstance(row, Problem):
                problems.append(row)
            else:
                count += 1
                yield row
        raise_problems(problems)
        check_split(self.cfg.data, name, count)

    def build_model(self, cfg: DictConfig, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the model; a new one may start from the weights of another model, or from its encoder."""
        model = super().build_model(cfg, from_checkpoint)
        self.trains_units = model.unit_decoder is not None
        if not from_checkpoint and cfg.load_pretrained_encoder_from:
            load_pretrained_encoder(model, cfg.load_pretrained_encoder_from)
        if not from_checkpoint and cfg.start_from:
            start_from(model, cfg.start_from)
        if not from_checkpoint:
            model.prepare_training(cfg)
        if str(cfg.train_only) == "units":
            model.keep_text()
        self._description = {
            "network": model.config.to_dict(),
            "policies": [policy.to_dict() for policy in self.policies],
            "target_text": str(self.cfg.target_text),
        }
        return model

    def state_dict(self) -> dict[str, Any]:
        """Description of the model, stored in checkpoints under ``task_state``."""
        return {"nast_s2x": self._description}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing: the description only documents the checkpoint."""

    def train_step(
        self,
        sample: dict[str, Any],
        model: nn.Module,
        criterion: nn.Module,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """As in fairseq, with the chunk policy of this update."""
        policy = draw_policy(self.policies, self.cfg.seed, update_num)
        sample = {**sample, "policy": policy, "update": update_num}
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def begin_valid_epoch(self, epoch: int, model: nn.Module) -> None:
        """Log samples again in each validation."""
        self._printed = 0

    @torch.no_grad()
    def valid_step(
        self, sample: dict[str, Any], model: nn.Module, criterion: nn.Module
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Losses (mean) and BLEU counts at the smallest and at the largest chunk, one forward pass for each."""
        model.eval()
        if sample["text"] is not None and not any(sample["references"]):  # of a training split
            labels = sample["text"]["labels"].tolist()
            sample = {**sample, "references": [self.labels.decode(row) for row in labels]}
        policies = extremes(self.policies)
        logs: list[dict[str, Any]] = []
        hypotheses: dict[str, list[str]] = {}
        for policy in policies:
            _, log, output = criterion.compute(model, sample, policy, update=0)
            if not self.cfg.skip_bleu:
                texts, units = self.translate(output, policy)
                hypotheses[policy.name] = texts
                log |= self._bleu_counts(policy.name, sample, texts, units)
            logs.append(log)
        losses = {key: sum(log[key] for log in logs) / len(logs) for key in logs[0] if key.endswith("loss")}
        merged = {key: value for log in logs for key, value in log.items()} | losses
        self._log_samples(sample, hypotheses)
        return losses["loss"], 1, merged

    def translate(self, output: NastOutput, policy: ChunkPolicy) -> tuple[list[str], list[str] | None]:
        """Texts and unit strings of a batch by greedy decoding; units are ``None`` without a unit decoder.

        Units are collapsed chunk by chunk, as in a stream of ``policy``.
        """
        rows = best_labels(output.text_logits, output.text_lengths)
        texts = [self.labels.decode(self.labels.collapser().push(row)) for row in rows]
        if output.unit_logits is None or output.unit_lengths is None or self.unit_labels is None:
            return texts, None
        size = ChunkGeometry(self.rates, policy).per_chunk("unit")
        units = []
        for row in best_labels(output.unit_logits, output.unit_lengths):
            collapser, step = self.unit_labels.collapser(), size or max(1, len(row))
            chunks = [collapser.push(row[start : start + step]) for start in range(0, len(row), step)]
            units.append(unit_string([unit for chunk in chunks for unit in chunk]))
        return texts, units

    def _bleu_counts(
        self, name: str, sample: dict[str, Any], texts: list[str], units: list[str] | None
    ) -> dict[str, int]:
        """Counts for BLEU; examples without a reference are left out of their score."""
        counts = _pair_counts(f"_bleu_{name}", texts, sample["references"], self.text_rules.tokenizer)
        if units is not None:
            counts |= _pair_counts(f"_unit_bleu_{name}", units, sample["unit_references"], "none")
        return counts

    def _log_samples(self, sample: dict[str, Any], hypotheses: dict[str, list[str]]) -> None:
        for row, reference in enumerate(sample["references"] if hypotheses else []):
            if self._printed >= self.cfg.print_samples:
                return
            self._printed += 1
            logger.info(f"T-{int(sample['id'][row])}\t{reference}")
            for name, texts in hypotheses.items():
                logger.info(f"H-{int(sample['id'][row])} ({name})\t{texts[row]}")

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: nn.Module) -> None:
        """Losses from the criterion; BLEU from counts summed over the validation set, also where it is 0."""
        super().reduce_metrics(logging_outputs, criterion)
        names = [policy.name for policy in extremes(self.policies)]
        for kind in ("bleu", "unit_bleu"):
            if not any(f"_{kind}_{names[0]}_sys" in log for log in logging_outputs):
                continue
            for key in {key for log in logging_outputs for key in log if key.startswith(f"_{kind}_")}:
                metrics.log_scalar_sum(key, sum(float(log.get(key, 0)) for log in logging_outputs))
            for name in names:
                metrics.log_derived(f"{kind}_{name}", _BleuOfMeters(kind, [name]))
            metrics.log_derived(kind, _BleuOfMeters(kind, names))

    def build_generator(self, models: list[nn.Module], args: Any, **_: Any) -> CtcGreedyGenerator:
        """Greedy generator at the largest of ``--chunk-ms``; flags that are not given are those of the model's
        training."""
        trained = getattr(models[0], "cfg", None) or self.cfg
        given = {
            name: getattr(self.cfg, name) if getattr(self.cfg, name) is not None else getattr(trained, name, None)
            for name in ("chunk_ms", "lookahead_ms", "wait_chunks", "left_ms")
        }
        policies = ChunkPolicy.parse(
            given["chunk_ms"] or DEFAULT_TRAINING_CHUNKS,
            given["lookahead_ms"],
            given["wait_chunks"] or 0,
            given["left_ms"],
        )
        logger.info(f"generating with {policies[-1]}")
        return CtcGreedyGenerator(policies[-1], self.labels)

    def inference_step(
        self,
        generator: CtcGreedyGenerator,
        models: list[nn.Module],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Hypotheses of a batch.

        Raises:
            ConfigError: prefixes or constraints, which decoding in one pass cannot follow.
        """
        if prefix_tokens is not None or constraints is not None:
            raise ConfigError("--prefix-size and --constraints are not available: decoding is not autoregressive")
        return generator.generate(models, sample)

    def build_bpe(self, args: Any) -> "PieceDecoder":
        """Decoder of the pieces that fairseq-generate prints."""
        return PieceDecoder(self.labels)


class PieceDecoder:
    """Pieces to text, with the interface of fairseq's BPE decoders."""

    def __init__(self, labels: TextLabels) -> None:
        self.labels = labels

    def decode(self, pieces: str) -> str:
        """Pieces separated by spaces -> text."""
        return self.labels.decode(self.labels.label(piece) for piece in pieces.split())


class _BleuOfMeters:
    """BLEU, or the mean of several, from the sums in fairseq's meters."""

    def __init__(self, kind: str, names: list[str]) -> None:
        self.kind, self.names = kind, names

    def __call__(self, meters: dict[str, Any]) -> float:
        sums = {key: float(meter.sum) for key, meter in meters.items() if key.startswith(f"_{self.kind}_")}
        scores = [bleu_of_counts(f"_{self.kind}_{name}", sums) for name in self.names]
        return round(sum(scores) / len(scores), 2)


def _pair_counts(prefix: str, hypotheses: list[str], references: list[str], tokenize: str) -> dict[str, int]:
    pairs = [pair for pair in zip(hypotheses, references, strict=True) if pair[1]]
    return bleu_counts(prefix, [pair[0] for pair in pairs], [pair[1] for pair in pairs], tokenize)


def _fairseq_dictionary(labels: TextLabels) -> Dictionary:
    dictionary = Dictionary()
    for label in range(NUM_SPECIALS, labels.size):
        dictionary.add_symbol(labels.piece(label))
    if len(dictionary) != labels.size or dictionary.index(BLANK) != labels.blank:
        raise ConfigError(f"the dictionary has {labels.size} labels, but fairseq's form of it {len(dictionary)}")
    return dictionary


def _adapt_settings(cfg: NastTaskConfig) -> None:
    """Set options of fairseq that this task depends on and that have no suitable flag or default.

    Batches are made for each epoch from (seed, epoch). fairseq's default freezes those of the epoch in which a run was
    started or resumed, so a resumed run would use other batches.

    Each process reads a checkpoint itself. fairseq's default reads it on one and sends it pickled to the others, whose
    weights-only reader refuses fairseq's configuration classes.

    ``--bf16`` is for GPUs and CPUs here. fairseq takes it for a request of a TPU, and fails without torch_xla.
    """
    if not isinstance(cfg, DictConfig):
        cfg.rebuild_batches = True
        return
    with open_dict(cfg):
        cfg.rebuild_batches = True
    root = cfg._get_root()
    common = root.get("common") if root is not cfg else None
    if common is not None and common.get("bf16") and common.get("tpu"):
        with open_dict(root):
            common.tpu = False
    distributed = root.get("distributed_training") if root is not cfg else None
    if distributed is not None and distributed.distributed_world_size > 1:
        root.checkpoint.load_checkpoint_on_all_dp_ranks = True
