"""NAST-S2X: speech features in, text labels and speech-unit labels out, in one non-autoregressive pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nast_s2x.chunking import ChunkGeometry
from nast_s2x.network.attention import RelativeSelfAttention
from nast_s2x.network.config import NastConfig
from nast_s2x.network.decoder import DecoderSizes, DecoderState, SlotDecoder, SlotGeometry
from nast_s2x.network.encoder import ChunkEncoder, EncoderState
from nast_s2x.network.layers import Dropouts
from nast_s2x.network.linear import Linear
from nast_s2x.network.subsampling import pool_frames

Glancer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits (B, N, V), lengths (B,)) -> labels (B, N) and mask (B, N), True where the label is shown to the decoder."""


@dataclass
class NastOutput:
    """What :meth:`NastModel.forward` returns; of a stream, only what is new and final.

    Attributes:
        encoder_out, encoder_lengths: (B, S, D) encoder frames and (B,) how many are valid.
        text_logits, text_lengths: (B, N, V) and (B,).
        unit_logits, unit_lengths: (B, U, Vu) and (B,); ``None`` without a unit decoder.
        asr_logits: (B, S, V) of the source transcript, where asked for.
        text_glance_mask, unit_glance_mask: (B, N) and (B, U) slots whose label was shown; ``None`` without glancing.
        first_text_slot: index in the stream of the first slot returned.
    """

    encoder_out: Tensor
    encoder_lengths: Tensor
    text_logits: Tensor
    text_lengths: Tensor
    unit_logits: Tensor | None = None
    unit_lengths: Tensor | None = None
    asr_logits: Tensor | None = None
    text_glance_mask: Tensor | None = None
    unit_glance_mask: Tensor | None = None
    first_text_slot: int = 0


@dataclass
class ModelState:
    """A stream: its geometry and what each part remembers. Owned by the caller, so one model serves many streams."""

    geometry: ChunkGeometry
    encoder: EncoderState
    text: DecoderState
    unit: DecoderState | None = None


@dataclass(frozen=True)
class _Frames:
    """Encoder frames, what of them is valid, and how they are cut; passed together to both decoders."""

    memory: Tensor
    lengths: Tensor | None
    geometry: ChunkGeometry
    state: ModelState | None
    final: bool


class NastModel(nn.Module):
    """Chunk encoder, text decoder and, where ``config.unit_vocab`` > 0, unit decoder (Ma et al., 2024, figure 2).

    Example:
        >>> model = NastModel(NastConfig(text_vocab=10, encoder_dim=32, decoder_dim=32)).eval()
        >>> model(torch.zeros(1, 50, 80), None, ChunkGeometry(32, 32)).text_logits.shape
        torch.Size([1, 7, 10])
    """

    def __init__(self, config: NastConfig) -> None:
        super().__init__()
        self.config = config
        dropouts = Dropouts(config.dropout, config.attention_dropout, config.activation_dropout)
        self.encoder = ChunkEncoder(config)
        self.decoder = SlotDecoder(_sizes(config, unit=False), dropouts, "text")
        self.unit_decoder = SlotDecoder(_sizes(config, unit=True), dropouts, "unit") if config.unit_vocab else None

    @property
    def int8(self) -> bool:
        """True where the layers multiply in 8 bits."""
        return any(isinstance(module, Linear) and module.int8 is not None for module in self.modules())

    def convert_for_inference(self, dtype: torch.dtype) -> NastModel:
        """Convert the weights for inference in ``dtype``; returns the model itself.

        The label embeddings, which give the logits, stay in float32 at least: among thousands of labels, half-precision
        logits would often tie. Softmax and sums over attention weights are computed in float32 whatever ``dtype`` is.

        ``torch.int8``: the layers' products alone, on a CPU (:class:`~nast_s2x.network.linear.Int8Weight`); the rest
        is float32, and the weights stay as they are.

        Raises:
            ValueError: int8 on another device than a CPU.
        """
        device = self.encoder.layernorm_embedding.weight.device
        if dtype == torch.int8 and device.type != "cpu":
            raise ValueError(f"int8 is for CPUs, this model is on {device}")
        floating = torch.float32 if dtype == torch.int8 else dtype
        self.to(floating)
        for decoder in filter(None, (self.decoder, self.unit_decoder)):
            decoder.embed_tokens.to(torch.promote_types(floating, torch.float32))
        for module in self.modules():
            if isinstance(module, Linear | RelativeSelfAttention):
                module.set_int8(dtype == torch.int8)
        return self

    def init_state(self, geometry: ChunkGeometry) -> ModelState:
        """State of a stream of which nothing was heard yet."""
        unit = None if self.unit_decoder is None else self.unit_decoder.init_state()
        return ModelState(geometry, self.encoder.init_state(), self.decoder.init_state(), unit)

    def forward(
        self,
        fbank: Tensor,
        fbank_lengths: Tensor | None,
        geometry: ChunkGeometry,
        *,
        state: ModelState | None = None,
        final: bool = True,
        text_glancer: Glancer | None = None,
        unit_glancer: Glancer | None = None,
        with_asr: bool = False,
        with_units: bool = True,
    ) -> NastOutput:
        """Translate features; with glancers, decode twice and show them labels in between.

        Args:
            fbank: (B, F, bins) normalised features; of a stream the new frames only, equally many in each sentence.
            fbank_lengths: (B,) valid frames; ``None``: all.
            geometry: chunk size, look-ahead and the rest; of a stream the one that its state was made for.
            state: a stream, from :meth:`init_state`.
            final: the source ends with these frames.
            text_glancer, unit_glancer: see :data:`Glancer`; training only.
            with_asr: also compute the recognition logits.
            with_units: run the unit decoder, if there is one; of a stream always or never.

        Raises:
            ValueError: arguments that do not belong together, or a source longer than the tables of learned positions.
        """
        self._check(fbank, fbank_lengths, geometry, state, text_glancer or unit_glancer)
        self._check_length(fbank.size(1), geometry, state, final, with_units)
        lengths = None if fbank_lengths is None else geometry.encoder_frames(fbank_lengths)
        encoder_out = self.encoder(fbank, lengths, geometry, state and state.encoder, final)
        frames = _Frames(encoder_out, lengths, geometry, state, final)
        first_slot = 0 if state is None else state.text.num_slots
        pooled = pool_frames(encoder_out, geometry.pooling, lengths).detach()
        slots = pooled.repeat_interleave(geometry.text_upsample, dim=1)

        text_glance = unit_glance = None
        if text_glancer is not None or unit_glancer is not None:
            with torch.no_grad():
                text_glance, unit_glance = self._glance(slots, frames, text_glancer, unit_glancer)
        hidden = self._text_hidden(slots, frames, text_glance)
        text_logits = self.decoder.logits(hidden)
        unit_logits = None
        if self.unit_decoder is not None and with_units:
            unit_logits = self._unit_logits(hidden, frames, unit_glance)
        text_lengths = self._lengths(text_logits, lengths, geometry)
        return NastOutput(
            encoder_out=encoder_out,
            encoder_lengths=_full(encoder_out) if lengths is None else lengths,
            text_logits=text_logits,
            text_lengths=text_lengths,
            unit_logits=unit_logits,
            unit_lengths=None if unit_logits is None else text_lengths * geometry.unit_upsample,
            asr_logits=self.decoder.logits(encoder_out) if with_asr else None,
            text_glance_mask=None if text_glance is None else text_glance[1],
            unit_glance_mask=None if unit_glance is None else unit_glance[1],
            first_text_slot=first_slot,
        )

    def _glance(
        self, slots: Tensor, frames: _Frames, text_glancer: Glancer | None, unit_glancer: Glancer | None
    ) -> tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None]:
        """First pass of both decoders, and the labels and masks that the glancers choose from it."""
        hidden = self._text_hidden(slots, frames, None)
        logits = self.decoder.logits(hidden)
        lengths = self._lengths(logits, frames.lengths, frames.geometry)
        text = None if text_glancer is None else text_glancer(logits, lengths)
        if unit_glancer is None or self.unit_decoder is None:
            return text, None
        return text, unit_glancer(self._unit_logits(hidden, frames, None), lengths * frames.geometry.unit_upsample)

    def _text_hidden(self, slots: Tensor, frames: _Frames, glance: tuple[Tensor, Tensor] | None) -> Tensor:
        state = frames.state and frames.state.text
        return _decode(self.decoder, slots, frames, SlotGeometry.text(frames.geometry), 1, state, glance)

    def _unit_logits(self, hidden: Tensor, frames: _Frames, glance: tuple[Tensor, Tensor] | None) -> Tensor:
        assert self.unit_decoder is not None
        ratio, state = frames.geometry.unit_upsample, frames.state and frames.state.unit
        slots, cut = hidden.repeat_interleave(ratio, dim=1), SlotGeometry.unit(frames.geometry)
        return self.unit_decoder.logits(_decode(self.unit_decoder, slots, frames, cut, ratio, state, glance))

    @staticmethod
    def _lengths(logits: Tensor, encoder_lengths: Tensor | None, geometry: ChunkGeometry) -> Tensor:
        return _full(logits) if encoder_lengths is None else geometry.text_slots_of_encoder(encoder_lengths)

    def _check(
        self,
        fbank: Tensor,
        lengths: Tensor | None,
        geometry: ChunkGeometry,
        state: ModelState | None,
        glancer: Glancer | None,
    ) -> None:
        if fbank.dim() != 3 or fbank.size(2) != self.config.input_dim:
            raise ValueError(f"fbank must have shape (B, F, {self.config.input_dim}), got {tuple(fbank.shape)}")
        if state is None:
            return
        if state.geometry != geometry:
            raise ValueError(f"a stream keeps its geometry: it began with {state.geometry}, now {geometry}")
        if lengths is not None:
            raise ValueError("a stream takes pieces without padding: fbank_lengths must be None")
        if glancer is not None:
            raise ValueError("glancing needs the whole utterance: no glancer together with a state")

    def _check_length(
        self, new_frames: int, geometry: ChunkGeometry, state: ModelState | None, final: bool, with_units: bool
    ) -> None:
        """Refuse a source that is too long for the decoders before the encoder spends time and memory on it."""
        frames = new_frames + (0 if state is None else state.encoder.num_frames)
        slots = geometry.text_slots(frames)
        if not (state is None or final or geometry.offline):
            chunks = max(0, geometry.ready_chunks(frames) - geometry.wait_chunks)
            slots = chunks * (geometry.chunk_text_slots or 0)
        try:
            self.decoder.check_positions(slots, SlotGeometry.text(geometry))
            if self.unit_decoder is not None and with_units:
                self.unit_decoder.check_positions(slots * geometry.unit_upsample, SlotGeometry.unit(geometry))
        except ValueError:
            if state is not None:
                state.encoder.num_frames = frames  # they were heard: the stream stays too long, whatever comes next
            raise


def _sizes(config: NastConfig, unit: bool) -> DecoderSizes:
    return DecoderSizes(
        vocab=config.unit_vocab if unit else config.text_vocab,
        dim=config.decoder_dim,
        layers=config.unit_layers if unit else config.decoder_layers,
        heads=config.decoder_heads,
        ffn_dim=config.decoder_ffn_dim,
        memory_dim=config.encoder_dim,
        max_positions=config.max_unit_positions if unit else config.max_text_positions,
        sinusoids=config.unit_sinusoids if unit else 0.0,
        rotary=config.unit_rotary and unit,
    )


def _decode(
    decoder: SlotDecoder,
    slots: Tensor,
    frames: _Frames,
    cut: SlotGeometry,
    ratio: int,
    state: DecoderState | None,
    glance: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Hidden states of one decoder, of which ``ratio`` slots belong to a text slot."""
    if glance is not None:
        slots = decoder.glance(slots, *glance)
    lengths = None if frames.lengths is None else frames.geometry.text_slots_of_encoder(frames.lengths) * ratio
    return decoder(slots, frames.memory, cut, lengths, frames.lengths, state, frames.final)


def _full(x: Tensor) -> Tensor:
    return torch.full((x.size(0),), x.size(1), dtype=torch.long, device=x.device)


IGNORED_SUFFIXES = ("output_projection.weight", ".version", "embed_positions._float_tensor")
"""Entries of released checkpoints that hold nothing of their own (tied weights, format marks)."""


def load_published_state(model: NastModel, state: Mapping[str, Tensor]) -> None:
    """Load parameters in the released checkpoints' names (which are ours) into ``model``.

    Raises:
        ValueError: parameters are missing, unknown, or of another shape; all of them are named.
    """
    ours = model.state_dict()
    theirs = {name: value for name, value in state.items() if not name.endswith(IGNORED_SUFFIXES)}
    problems = [f"missing {name}" for name in ours if name not in theirs]
    problems += [f"unknown {name}" for name in theirs if name not in ours]
    problems += [
        f"{name} has shape {tuple(theirs[name].shape)}, not {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    ]
    if problems:
        raise ValueError("the checkpoint does not fit this network: " + "; ".join(problems))
    model.load_state_dict(theirs)
