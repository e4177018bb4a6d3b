"""The network as a fairseq model: one registered class, four architectures, unprefixed parameter names.

fairseq's encoder-decoder base class insists on its own encoder type; this class is the network and a
``BaseFairseqModel`` at once instead, so ``model.state_dict()`` has the names of the released checkpoints.
"""

import logging
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from omegaconf import II, DictConfig
from torch import Tensor

from nast_s2x.checkpoints.fairseq import SAFE_CLASSES, load_checkpoint
from nast_s2x.checkpoints.published import IGNORED_SUFFIXES, load_published_state
from nast_s2x.chunking import SlotRates
from nast_s2x.inference.bundle import read_weights
from nast_s2x.network import NastConfig, NastModel, positions_for_seconds, preset

logger = logging.getLogger(__name__)
TRAIN_ONLY_CHOICES = ChoiceEnum(["all", "units"])
UNIT_PREFIX = "unit_decoder."
# fairseq calls torch.load with its defaults, which are weights-only: with this list, resuming, fine-tuning and
# generation read checkpoints that hold settings in these inert classes, and still never execute anything from one.
torch.serialization.add_safe_globals(list(SAFE_CLASSES))

# fairseq reads the types of these fields at run time: they must be classes of `typing`, not strings or unions.


_FROM_DATA = {"text_vocab", "unit_vocab", "input_dim", "max_text_positions", "max_unit_positions", "rates"}
"""Fields of the network's configuration that follow from the data folder and from task flags."""
_TYPES = {"int": int, "float": float, "bool": bool}
_NETWORK_FIELDS = [entry for entry in fields(NastConfig) if entry.name not in _FROM_DATA]

NetworkFlags = make_dataclass(
    "NetworkFlags",
    [
        (entry.name, _TYPES[str(entry.type)], field(default=entry.default, metadata=dict(entry.metadata)))
        for entry in _NETWORK_FIELDS
    ],
    bases=(FairseqDataclass,),
    namespace={"__module__": __name__},
)


@dataclass
class NastModelConfig(NetworkFlags):
    """Flags of the network; the architecture (``--arch``) sets those that are not given."""

    unit_decoder: bool = field(
        default=False, metadata={"help": "add the unit decoder; the nast_s2s architectures do this by themselves"}
    )
    load_pretrained_encoder_from: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "checkpoint whose encoder.* weights start this training (the encoder of an ASR stage); sizes must "
            "agree; ignored when a checkpoint is restored afterwards"
        },
    )
    start_from: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "bundle folder or checkpoint whose weights start this training; a unit decoder, or upper layers of "
            "it, that it lacks begin as initialised; ignored when a checkpoint is restored afterwards"
        },
    )
    train_only: TRAIN_ONLY_CHOICES = field(
        default="all",
        metadata={"help": "all, or units: encoder and text decoder stay as they are (--asr-weight 0 --text-weight 0)"},
    )
    # Copies of task flags, so that a checkpoint's model section describes the whole network and its geometry.
    max_source_seconds: float = II("task.max_source_seconds")
    chunk_ms: Optional[str] = II("task.chunk_ms")  # noqa: UP045
    lookahead_ms: Optional[int] = II("task.lookahead_ms")  # noqa: UP045
    wait_chunks: Optional[int] = II("task.wait_chunks")  # noqa: UP045
    left_ms: Optional[int] = II("task.left_ms")  # noqa: UP045
    pooling: int = II("task.pooling")
    text_upsample: int = II("task.text_upsample")
    unit_upsample: int = II("task.unit_upsample")


ModelSettings = NastModelConfig | DictConfig | Namespace


def drop_foreign_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without the entries of released checkpoints that carry no weights of their own (SPEC section 10)."""
    return {name: value for name, value in state.items() if not name.endswith(IGNORED_SUFFIXES)}


def fit_position_tables(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its learned position tables as long as those of ``own``.

    The tables' length follows from ``--max-source-seconds``, which may change between stages and differs from that of
    the released models. Rows that ``state`` lacks keep the values of ``own``, its initialisation.
    """
    fitted = dict(state)
    for name in ("decoder.embed_positions.weight", "unit_decoder.embed_positions.weight"):
        theirs, ours = state.get(name), own.get(name)
        if theirs is None or ours is None or theirs.shape == ours.shape or theirs.shape[1] != ours.shape[1]:
            continue
        rows = min(len(theirs), len(ours))
        fitted[name] = ours.clone()
        fitted[name][:rows] = theirs[:rows]
        logger.warning(f"{name}: {len(theirs)} rows in the checkpoint, {len(ours)} here; the first {rows} are taken")
    return fitted


def network_config(cfg: ModelSettings, text_vocab: int, unit_vocab: int, input_dim: int = 80) -> NastConfig:
    """The network's configuration from fairseq's model settings and the sizes of the label sets.

    Args:
        unit_vocab: labels of the unit decoder, 0 where the data has no units.

    Raises:
        ValueError: the architecture has a unit decoder but the data has no units.
    """
    if cfg.unit_decoder and not unit_vocab:
        raise ValueError("this architecture has a unit decoder, but config.yaml of the data folder names no num_units")
    rates = SlotRates(pooling=cfg.pooling, text_upsample=cfg.text_upsample, unit_upsample=cfg.unit_upsample)
    text_positions, unit_positions = positions_for_seconds(cfg.max_source_seconds, rates)
    return NastConfig(
        text_vocab=text_vocab,
        unit_vocab=unit_vocab if cfg.unit_decoder else 0,
        input_dim=input_dim,
        max_text_positions=text_positions,
        max_unit_positions=cfg.unit_upsample if cfg.unit_rotary else unit_positions,
        rates=rates,
        **{entry.name: getattr(cfg, entry.name) for entry in _NETWORK_FIELDS},
    )


def grow_unit_decoder(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with what it lacks of the unit decoder of ``own``: all of it, or its upper layers, as initialised.

    So speech to speech can start from a whole model that translates to text, and a deeper unit decoder from a shallower
    one (``--finetune-from-model``). A state whose unit decoder lacks anything else is left as it is.
    """
    grown = dict(state)
    missing = {name: value for name, value in own.items() if name.startswith(UNIT_PREFIX) and name not in state}
    layers, there = _unit_layers(missing), _unit_layers(state)
    whole = not any(name.startswith(UNIT_PREFIX) for name in state)
    deeper = there and all(name.startswith(f"{UNIT_PREFIX}layers.") for name in missing) and not layers & there
    if not missing or not (whole or deeper):
        return grown
    what = "unit decoder" if whole else f"unit decoder layers {sorted(layers)}"
    logger.warning(f"the checkpoint has no {what}; initialisation stands in ({len(missing)} tensors)")
    return grown | missing


def _unit_layers(names: Iterable[str]) -> set[int]:
    """Numbers of the unit decoder's layers among parameter names."""
    prefix = f"{UNIT_PREFIX}layers."
    return {int(name.removeprefix(prefix).split(".")[0]) for name in names if name.startswith(prefix)}


@register_model("nast_s2x", dataclass=NastModelConfig)
class NastFairseqModel(NastModel, BaseFairseqModel):
    """:class:`nast_s2x.network.NastModel` with what fairseq asks of a model."""

    cfg: ModelSettings
    text_kept = False

    @classmethod
    def build_model(cls, args: ModelSettings, task: Any) -> "NastFairseqModel":
        """Build the network for ``task`` (label sets, feature size); weights are those of the initialisation."""
        model = cls(network_config(args, task.labels.size, task.unit_vocab, task.data_config.feature_bins))
        model.cfg = args
        return model

    def max_positions(self) -> None:
        """The task limits the source length, not the model."""

    def keep_text(self) -> None:
        """Leave encoder and text decoder as they are from now on: no gradients, no dropout (``--train-only units``).

        Raises:
            ValueError: there is no unit decoder to train.
        """
        if self.unit_decoder is None:
            raise ValueError("--train-only units needs a unit decoder: an architecture nast_s2s, or --unit-decoder")
        self.text_kept = True
        for part in (self.encoder, self.decoder):
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "NastFairseqModel":
        """As in torch; what :meth:`keep_text` keeps stays in evaluation mode."""
        super().train(mode)
        if self.text_kept:
            self.encoder.eval()
            self.decoder.eval()
        return self

    def load_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        strict: bool = True,
        model_cfg: DictConfig | None = None,
        args: Namespace | None = None,
    ) -> Any:
        """As in fairseq; entries of released checkpoints that hold no weights are passed over, and position tables of
        another length are fitted (:func:`fit_position_tables`), and a unit decoder, or upper layers of it, that the
        checkpoint lacks keep their initialisation (:func:`grow_unit_decoder`)."""
        own = self.state_dict()
        state = grow_unit_decoder(fit_position_tables(drop_foreign_keys(state_dict), own), own)
        return super().load_state_dict(state, strict, model_cfg, args)


def start_from(model: NastFairseqModel, path: str | Path) -> None:
    """Start ``model`` from the weights of a bundle folder or of a checkpoint.

    Raises:
        FileNotFoundError, ValueError: there is none, it is damaged, or does not fit; parameters are named.
    """
    path = Path(path)
    weights = read_weights(path) if path.is_dir() else load_checkpoint(path)["model"]
    own = model.state_dict()
    state = grow_unit_decoder(fit_position_tables(drop_foreign_keys(weights), own), own)
    try:
        load_published_state(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    logger.info(f"weights started from {path} ({len(weights)} tensors)")


def load_pretrained_encoder(model: NastModel, path: str | Path) -> None:
    """Start the encoder of ``model`` from the checkpoint at ``path`` (any model whose encoder has the same sizes).

    Raises:
        FileNotFoundError, ValueError: no such file, not only data, no encoder in it, or another size.
    """
    state = drop_foreign_keys(load_checkpoint(path)["model"])
    weights = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    own = model.encoder.state_dict()
    if not weights:
        raise ValueError(f"checkpoint {path} has no weights named encoder.*")
    if missing := sorted(own.keys() ^ weights.keys()):
        raise ValueError(f"the encoder in {path} has another shape: {missing[0]} exists on one side only")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise ValueError(
                f"encoder.{name} is {tuple(value.shape)} in {path}, {tuple(own[name].shape)} in this architecture"
            )
    model.encoder.load_state_dict(weights)
    logger.info(f"encoder started from {path} ({len(weights)} tensors)")


def _set_defaults(args: Namespace | DictConfig, name: str, unit_decoder: bool) -> None:
    """Fill what the command line left open from the preset ``name`` (fairseq calls this with flat settings)."""
    base = preset(name, text_vocab=5)
    for entry in _NETWORK_FIELDS:
        setattr(args, entry.name, getattr(args, entry.name, getattr(base, entry.name)))
    args.unit_decoder = unit_decoder or bool(getattr(args, "unit_decoder", False))


@register_model_architecture("nast_s2x", "nast_s2t")
def nast_s2t(args: Namespace | DictConfig) -> None:
    """Speech to text at the paper's size."""
    _set_defaults(args, "base", unit_decoder=False)


@register_model_architecture("nast_s2x", "nast_s2t_tiny")
def nast_s2t_tiny(args: Namespace | DictConfig) -> None:
    """Speech to text at the example's size."""
    _set_defaults(args, "tiny", unit_decoder=False)


@register_model_architecture("nast_s2x", "nast_s2s")
def nast_s2s(args: Namespace | DictConfig) -> None:
    """Speech to units (and text) at the paper's size."""
    _set_defaults(args, "base", unit_decoder=True)


@register_model_architecture("nast_s2x", "nast_s2s_tiny")
def nast_s2s_tiny(args: Namespace | DictConfig) -> None:
    """Speech to units (and text) at the example's size."""
    _set_defaults(args, "tiny", unit_decoder=True)
