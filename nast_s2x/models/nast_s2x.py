"""The network as a fairseq model: one registered class, four architectures, unprefixed parameter names.

The class is the network and a ``BaseFairseqModel`` at once, so ``model.state_dict()`` has the names of the released
checkpoints. (fairseq's encoder-decoder base class requires an encoder of its own type.)
"""

import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from omegaconf import II, DictConfig
from torch import Tensor

from nast_s2x.checkpoints.safe_load import SAFE_CLASSES
from nast_s2x.checkpoints.start import initial_state
from nast_s2x.chunking import SlotRates
from nast_s2x.errors import ConfigError
from nast_s2x.network import NastConfig, NastModel, positions_for_seconds, preset

logger = logging.getLogger(__name__)
TRAIN_ONLY_CHOICES = ChoiceEnum(["all", "units"])
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
    checkpoint_activations: bool = field(
        default=False,
        metadata={
            "help": "keep only the inputs of each layer and compute the rest again in the backward pass: less memory, "
            "more time"
        },
    )
    compile: bool = field(
        default=False, metadata={"help": "compile the layers by torch.compile; needs a C++ compiler or a GPU"}
    )
    tf32: bool = field(
        default=False, metadata={"help": "float32 products in TF32 on GPUs that have it, for the whole process"}
    )
    # Copies of task flags, so that a checkpoint's model section describes the whole network and its geometry.
    max_source_seconds: float = II("task.max_source_seconds")
    chunk_ms: Optional[str] = II("task.chunk_ms")  # noqa: UP045
    lookahead_ms: Optional[int] = II("task.lookahead_ms")  # noqa: UP045
    wait_chunks: Optional[int] = II("task.wait_chunks")  # noqa: UP045
    left_ms: Optional[str] = II("task.left_ms")  # noqa: UP045
    pooling: int = II("task.pooling")
    text_upsample: int = II("task.text_upsample")
    unit_upsample: int = II("task.unit_upsample")


ModelSettings = NastModelConfig | DictConfig | Namespace


def network_config(cfg: ModelSettings, text_vocab: int, unit_vocab: int, input_dim: int = 80) -> NastConfig:
    """The network's configuration from fairseq's model settings and the sizes of the label sets.

    Args:
        unit_vocab: labels of the unit decoder, 0 where the data has no units.

    Raises:
        ConfigError: the architecture has a unit decoder but the data has no units.
    """
    if cfg.unit_decoder and not unit_vocab:
        raise ConfigError("this architecture has a unit decoder, but config.yaml of the data folder has no num_units")
    rates = SlotRates(pooling=cfg.pooling, text_upsample=cfg.text_upsample, unit_upsample=cfg.unit_upsample)
    text_positions, unit_positions = positions_for_seconds(cfg.max_source_seconds, rates)
    # Learned positions beside rotary ones only tell apart the slots that are copies of one state.
    if cfg.relative_positions:
        text_positions = cfg.text_upsample
    if cfg.relative_positions or cfg.unit_rotary:
        unit_positions = cfg.unit_upsample
    return NastConfig(
        text_vocab=text_vocab,
        unit_vocab=unit_vocab if cfg.unit_decoder else 0,
        input_dim=input_dim,
        max_text_positions=text_positions,
        max_unit_positions=unit_positions,
        rates=rates,
        **{entry.name: getattr(cfg, entry.name) for entry in _NETWORK_FIELDS},
    )


@register_model("nast_s2x", dataclass=NastModelConfig)
class NastFairseqModel(NastModel, BaseFairseqModel):
    """:class:`nast_s2x.network.NastModel` with the interface of a fairseq model."""

    cfg: ModelSettings
    text_kept = False

    @classmethod
    def build_model(cls, args: ModelSettings, task: Any) -> "NastFairseqModel":
        """Build the network for ``task`` (label sets, feature size); weights are those of the initialisation."""
        model = cls(network_config(args, task.labels.size, task.unit_vocab, task.data_config.feature_bins))
        model.cfg = args
        return model

    def max_positions(self) -> None:
        """None: the task limits the source length, not the model."""

    def prepare_training(self, cfg: ModelSettings) -> None:
        """Apply ``--checkpoint-activations``, ``--compile`` and ``--tf32``, which change no weight."""
        if getattr(cfg, "checkpoint_activations", False):
            self.checkpoint_activations()
        if getattr(cfg, "compile", False):
            self.compile_layers()
        if getattr(cfg, "tf32", False):
            torch.set_float32_matmul_precision("high")

    def keep_text(self) -> None:
        """Freeze encoder and text decoder: no gradients, no dropout (``--train-only units``).

        Raises:
            ConfigError: there is no unit decoder to train.
        """
        if self.unit_decoder is None:
            raise ConfigError("--train-only units needs a unit decoder: an architecture nast_s2s, or --unit-decoder")
        self.text_kept = True
        for part in (self.encoder, self.decoder):
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "NastFairseqModel":
        """As in torch; parts frozen by :meth:`keep_text` stay in evaluation mode."""
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
        """As in fairseq, with the names and sizes of this model, see
        :func:`~nast_s2x.checkpoints.start.initial_state`."""
        state = initial_state(state_dict, self.state_dict())
        return super().load_state_dict(state, strict, model_cfg, args)


def _set_defaults(args: Namespace | DictConfig, name: str, unit_decoder: bool) -> None:
    """Set what the command line does not give from the preset ``name`` (fairseq calls this with flat settings)."""
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
