"""NAST-S2X: speech features in, text labels and speech-unit labels out, in one non-autoregressive pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from nast_s2x.batches import Glancer, Lengths
from nast_s2x.chunking import Axis, ChunkGeometry, ChunkPolicy
from nast_s2x.errors import ConfigError, StreamError
from nast_s2x.network.attention import RelativeSelfAttention
from nast_s2x.network.config import NastConfig
from nast_s2x.network.decoder import Places, SlotDecoder
from nast_s2x.network.encoder import ChunkEncoder
from nast_s2x.network.layers import Dropouts
from nast_s2x.network.linear import Linear, Packable, for_products
from nast_s2x.network.output import NastOutput
from nast_s2x.network.relations import keep_out_of_graphs
from nast_s2x.network.state import ModelState, Stream, advance
from nast_s2x.network.streams import joined_rows
from nast_s2x.network.subsampling import pool_frames

_geometry = lru_cache(maxsize=256)(ChunkGeometry)
AXES: tuple[Axis, ...] = ("encoder", "text", "unit")


class _Call:
    """What both decoders need of a call for whole utterances, and the valid lengths of each row by axis."""

    def __init__(self, frames: Lengths | None, geometry: ChunkGeometry) -> None:
        self.geometry = geometry
        self.places: dict[Axis, Places] = {}
        self.lengths: dict[Axis, Lengths | None] = {
            axis: None if frames is None else Lengths.of(geometry.length(axis, count) for count in frames.host)
            for axis in AXES
        }

    def valid(self, axis: Axis, x: Tensor) -> Lengths:
        """Valid positions of each row of ``x`` (B, T, ...)."""
        lengths = self.lengths[axis]
        return Lengths((x.size(1),) * x.size(0)) if lengths is None else lengths


class NastModel(nn.Module):
    """Chunk encoder, text decoder and, where ``config.unit_vocab`` > 0, unit decoder (Ma et al., 2024, figure 2).

    Example:
        >>> model = NastModel(NastConfig(text_vocab=10, encoder_dim=32, decoder_dim=32)).eval()
        >>> model(torch.zeros(1, 50, 80), None, ChunkPolicy(320)).text_logits.shape
        torch.Size([1, 7, 10])
    """

    def __init__(self, config: NastConfig) -> None:
        super().__init__()
        self.config = config
        dropouts = Dropouts(config.dropout, config.attention_dropout, config.activation_dropout)
        self.encoder = ChunkEncoder(config)
        self.decoder = SlotDecoder(config, dropouts, "text")
        self.unit_decoder = SlotDecoder(config, dropouts, "unit") if config.unit_vocab else None

    def geometry(self, policy: ChunkPolicy) -> ChunkGeometry:
        """Lengths and times of ``policy`` for this model's slot rates.

        Raises:
            ConfigError: the policy's sizes are not multiples of the model's steps.
        """
        return _geometry(self.config.rates, policy)

    @property
    def int8(self) -> bool:
        """True where the layers multiply in 8 bits."""
        return any(isinstance(module, Linear) and module.int8 is not None for module in self.modules())

    def convert_for_inference(self, dtype: torch.dtype) -> NastModel:
        """Convert the weights for inference in ``dtype``; returns the model itself.

        The label embeddings, which give the logits, stay in float32 at least, unrounded: among thousands of labels,
        half-precision logits would often tie. Softmax and sums over attention weights are computed in float32 whatever
        ``dtype`` is.

        ``torch.int8``: the layers' products alone, on a CPU (:class:`~nast_s2x.network.linear.Int8Weight`); the rest
        is float32, and the weights stay as they are.

        Raises:
            ConfigError: int8 on another device than a CPU.
        """
        device = self.encoder.layernorm_embedding.weight.device
        if dtype == torch.int8 and device.type != "cpu":
            raise ConfigError(f"int8 is for CPUs, but the model is on {device}")
        floating = torch.float32 if dtype == torch.int8 else dtype
        tables = [decoder.embed_tokens for decoder in (self.decoder, self.unit_decoder) if decoder is not None]
        exact = [table.weight.detach() for table in tables]
        self.to(floating)
        for table, weight in zip(tables, exact, strict=True):
            table.weight.data = weight.to(torch.promote_types(floating, torch.float32))
        for module in self.modules():
            if isinstance(module, Linear | RelativeSelfAttention):
                module.set_int8(dtype == torch.int8)
        self.encoder.conv_layers.out_proj.set_int8(False)  # few products, and the first error of all others
        return self.pack()

    def pack(self) -> NastModel:
        """Pack the weights for inference on a CPU (:class:`~nast_s2x.network.linear.PackedWeight`); returns the model.

        The packed copies, as large as the weights, are used while gradients are off, and dropped when the model is
        moved, converted or loaded into.
        """
        for module in reversed(list(self.modules())):  # parts first: attention packs its projections together
            if isinstance(module, Packable):
                module.pack()
        return self

    def checkpoint_activations(self, on: bool = True) -> None:
        """Keep only the inputs of each layer in training, and compute the rest again in the backward pass."""
        for part in (self.encoder, self.decoder, self.unit_decoder):
            if part is not None:
                part.checkpointed = on

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile each layer of encoder and decoders by :func:`torch.compile`; the names of parameters stay."""
        keep_out_of_graphs()
        for part in (self.encoder, self.decoder, self.unit_decoder):
            for layer in () if part is None else part.layers:
                layer.compile(backend=backend)

    def init_state(self, policy: ChunkPolicy, rows: int = 1) -> ModelState:
        """State at the start of ``rows`` streams.

        Raises:
            ConfigError: as :meth:`geometry`.
        """
        return ModelState(self, self.geometry(policy), rows)

    def forward(
        self,
        fbank: Tensor,
        frames: Lengths | None,
        policy: ChunkPolicy,
        *,
        state: ModelState | None = None,
        final: bool = True,
        text_glancer: Glancer | None = None,
        unit_glancer: Glancer | None = None,
        with_asr: bool = False,
        with_units: bool = True,
    ) -> NastOutput:
        """Translate features; with glancers, decode twice and show labels to the second pass.

        Args:
            fbank: (B, F, bins) normalised features; of streams the new frames only, equally many in each row.
            frames: valid frames of each row; ``None``: all.
            policy: chunk size, look-ahead, wait and left context; of a stream the one that its state was made for.
            state: streams, from :meth:`init_state`.
            final: the source ends with these frames.
            text_glancer, unit_glancer: see :data:`~nast_s2x.batches.Glancer`; training only.
            with_asr: also compute the recognition logits.
            with_units: run the unit decoder, if there is one; of a stream always or never.

        Raises:
            ConfigError: a policy that the model cannot have, or a source longer than the tables of learned positions.
            StreamError: a call that the state does not allow.
            ValueError: features of a wrong shape.
        """
        geometry = self.geometry(policy)
        self._check(fbank, frames, geometry, state, text_glancer or unit_glancer)
        self._check_length(fbank.size(1), geometry, state, final, with_units)
        if state is not None:
            return advance(self, state, fbank, final, with_asr, with_units)
        return self.whole(fbank, frames, geometry, text_glancer, unit_glancer, with_asr, with_units)

    def whole(
        self,
        fbank: Tensor,
        frames: Lengths | None,
        geometry: ChunkGeometry,
        text_glancer: Glancer | None = None,
        unit_glancer: Glancer | None = None,
        with_asr: bool = False,
        with_units: bool = True,
    ) -> NastOutput:
        """:meth:`forward` of whole utterances, without its checks."""
        call = _Call(frames, geometry)
        encoder_out = self.encoder(fbank, call.lengths["encoder"], geometry)
        lengths = call.lengths["encoder"]
        slots = self._slots(encoder_out, None if lengths is None else lengths.mask(encoder_out.size(1), fbank.device))

        memory = for_products(encoder_out)
        text_glance = unit_glance = None
        if text_glancer is not None or unit_glancer is not None:
            with torch.no_grad():
                text_glance, unit_glance = self._glance(slots, memory, call, text_glancer, unit_glancer)
        hidden = _decode(self.decoder, slots, memory, call, text_glance)
        text_logits = self.decoder.logits(hidden)
        unit_logits = None
        if self.unit_decoder is not None and with_units:
            unit_logits = self._unit_logits(hidden, memory, call, unit_glance)
        return NastOutput(
            encoder_out=encoder_out,
            encoder_lengths=call.valid("encoder", encoder_out),
            text_logits=text_logits,
            text_lengths=call.valid("text", text_logits),
            unit_logits=unit_logits,
            unit_lengths=None if unit_logits is None else call.valid("unit", unit_logits),
            asr_logits=self.decoder.logits(encoder_out) if with_asr else None,
            text_glance_mask=None if text_glance is None else text_glance[1],
            unit_glance_mask=None if unit_glance is None else unit_glance[1],
        )

    def step(
        self, fbank: Tensor, streams: Sequence[Stream], with_asr: bool = False, with_units: bool = True
    ) -> NastOutput | None:
        """Move streams on by one chunk; ``None`` while all rows only take in their first look-ahead.

        Args:
            fbank: (N, chunk_frames, bins) new frames of each row, zeros in front of the first frames of a source and
                behind the last.
            streams: parts of the rows, each a state with its step, from ``state.rows.step()``; all of one policy.

        Returns:
            all positions of the chunk; the lengths say how many of each row exist, 0 for rows that stay.
        """
        geometry = streams[0][0].geometry
        encoder_out = self.encoder(fbank, None, geometry, [(state.encoder, step) for state, step in streams])
        if not encoder_out.size(1):
            return None
        valid = None
        if not all(step.is_full("encoder") for _, step in streams):
            valid = joined_rows(step.valid("encoder", fbank.device) for _, step in streams)
        memory, parts = for_products(encoder_out), [(state.text, step) for state, step in streams]
        slots = self.decoder.queue(self._slots(encoder_out, valid), parts)
        hidden = self.decoder(slots, memory, geometry, streams=parts)
        unit_logits = None
        if self.unit_decoder is not None and with_units:
            parts = [(state.unit, step) for state, step in streams if state.unit is not None]
            slots = hidden.repeat_interleave(geometry.rates.unit_upsample, dim=1)
            unit_logits = self.unit_decoder.logits(self.unit_decoder(slots, memory, geometry, streams=parts))
        lengths = {axis: Lengths.of(np.concatenate([step.new(axis) for _, step in streams])) for axis in AXES}
        return NastOutput(
            encoder_out=encoder_out,
            encoder_lengths=lengths["encoder"],
            text_logits=self.decoder.logits(hidden),
            text_lengths=lengths["text"],
            unit_logits=unit_logits,
            unit_lengths=None if unit_logits is None else lengths["unit"],
            asr_logits=self.decoder.logits(encoder_out) if with_asr else None,
        )

    def _slots(self, encoder_out: Tensor, valid: Tensor | None) -> Tensor:
        """Inputs (B, N, D) of the text decoder: means of the valid encoder frames, without a gradient."""
        rates = self.config.rates
        return pool_frames(encoder_out, rates.pooling, valid).detach().repeat_interleave(rates.text_upsample, dim=1)

    def _glance(
        self,
        slots: Tensor,
        memory: Tensor,
        call: _Call,
        text_glancer: Glancer | None,
        unit_glancer: Glancer | None,
    ) -> tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None]:
        """First pass of both decoders, and the labels and masks that the glancers choose from it."""
        hidden = _decode(self.decoder, slots, memory, call, None)
        logits = self.decoder.logits(hidden)
        text = None if text_glancer is None else text_glancer(logits, call.valid("text", logits))
        if unit_glancer is None or self.unit_decoder is None:
            return text, None
        units = self._unit_logits(hidden, memory, call, None)
        return text, unit_glancer(units, call.valid("unit", units))

    def _unit_logits(self, hidden: Tensor, memory: Tensor, call: _Call, glance: tuple[Tensor, Tensor] | None) -> Tensor:
        assert self.unit_decoder is not None
        slots = hidden.repeat_interleave(call.geometry.rates.unit_upsample, dim=1)
        return self.unit_decoder.logits(_decode(self.unit_decoder, slots, memory, call, glance))

    def _check(
        self,
        fbank: Tensor,
        frames: Lengths | None,
        geometry: ChunkGeometry,
        state: ModelState | None,
        glancer: Glancer | None,
    ) -> None:
        if fbank.dim() != 3 or fbank.size(2) != self.config.input_dim:
            raise ValueError(f"fbank must have shape (B, F, {self.config.input_dim}), got {tuple(fbank.shape)}")
        if frames is not None and (len(frames) != fbank.size(0) or frames.longest > fbank.size(1)):
            raise ValueError(f"frames {frames.host} do not belong to fbank of shape {tuple(fbank.shape)}")
        if state is None:
            return
        if state.finished:
            raise StreamError("the stream has ended: a state takes no frames after final=True")
        if state.geometry != geometry:
            raise StreamError(
                f"a stream keeps its policy: it began with {state.geometry.policy}, now {geometry.policy}"
            )
        if frames is not None:
            raise StreamError("a stream takes pieces without padding: frames must be None")
        if glancer is not None:
            raise StreamError("glancing needs the whole utterance: no glancer together with a state")

    def max_frames(self, with_units: bool) -> int | None:
        """Feature frames of the longest source; ``None``: no limit."""
        limits = [self.decoder.max_frames(self.config.rates)]
        if self.unit_decoder is not None and with_units:
            limits.append(self.unit_decoder.max_frames(self.config.rates))
        return min((limit for limit in limits if limit is not None), default=None)

    def check_length(self, frames: int, geometry: ChunkGeometry, with_units: bool) -> None:
        """Check that a source of ``frames`` feature frames has positions for all of its slots.

        Raises:
            ConfigError: the tables of learned positions are shorter.
        """
        self.decoder.check_positions(geometry.length("text", frames), geometry)
        if self.unit_decoder is not None and with_units:
            self.unit_decoder.check_positions(geometry.length("unit", frames), geometry)

    def _check_length(
        self, new_frames: int, geometry: ChunkGeometry, state: ModelState | None, final: bool, with_units: bool
    ) -> None:
        """Refuse a source that is too long for the decoders before the encoder uses time and memory for it."""
        frames = new_frames + (0 if state is None else state.frames)
        if not (state is None or final or geometry.policy.is_offline):
            chunks = max(0, geometry.ready_chunks(frames) - geometry.policy.wait_chunks)
            frames_of_chunks = chunks * (geometry.chunk_frames or 0)
        else:
            frames_of_chunks = frames
        try:
            self.check_length(frames_of_chunks, geometry, with_units)
        except ConfigError:
            if state is not None:
                state.frames = frames  # counted, so that later calls are refused too
            raise


def _decode(
    decoder: SlotDecoder, slots: Tensor, memory: Tensor, call: _Call, glance: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Hidden states of one decoder for whole utterances."""
    if glance is not None:
        slots = decoder.glance(slots, *glance)
    lengths, memory_lengths = call.lengths[decoder.axis], call.lengths["encoder"]
    return decoder(slots, memory, call.geometry, lengths, memory_lengths, call.places)
