"""Training of a unit vocoder: HiFi-GAN's losses (Kong et al., 2020) and the durations of units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nast_s2x.vocoder.checkpoint import fold_weight_norm
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.training.data import CropBatch
from nast_s2x.vocoder.training.discriminators import Discriminators, Judgement
from nast_s2x.vocoder.training.losses import (
    MelLoss,
    StftLoss,
    discriminator_loss,
    duration_loss,
    feature_matching_loss,
    generator_adversarial_loss,
)
from nast_s2x.vocoder.training.parallel import ALONE, Ranks, average_gradients
from nast_s2x.vocoder.training.settings import TrainingSettings

_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
_SMALLEST_SCALE = 2.0**-10


def build_generator(config: VocoderConfig, init_std: float | None) -> UnitVocoder:
    """A fresh generator whose convolutions carry weight norm, as it is trained.

    Args:
        config: sizes.
        init_std: standard deviation of the upsampling and residual convolutions' first weights and the last one's;
            ``None`` = PyTorch's own.
    """
    model = UnitVocoder(config)
    for name, module in model.named_modules():
        if isinstance(module, _CONVOLUTIONS) and not name.startswith("dur_predictor"):
            if init_std is not None and name != "conv_pre":
                nn.init.normal_(module.weight, 0.0, init_std)
            weight_norm(module)
    return model


def learning_rate(settings: TrainingSettings, update: int) -> float:
    """The rate of an update, counted from 0."""
    rate = settings.learning_rate
    if update < settings.warmup_updates:
        return rate * (update + 1) / settings.warmup_updates
    if settings.final_fraction is None:
        return rate * settings.decay ** (update / settings.decay_every)
    done = min(1.0, (update - settings.warmup_updates) / max(1, settings.max_updates - settings.warmup_updates))
    return rate * (settings.final_fraction + (1 - settings.final_fraction) * 0.5 * (1 + math.cos(math.pi * done)))


def crop_waveform(waveform: Tensor, offsets: Tensor, crop_frames: int) -> Tensor:
    """The crop of each generated window: (B, 320 T), (B,) -> (B, 320 crop_frames)."""
    reach = torch.arange(crop_frames * UNIT_SAMPLES, device=waveform.device)
    wanted = offsets[:, None] * UNIT_SAMPLES + reach
    return waveform.gather(1, wanted)


class VocoderTrainer(nn.Module):
    """Generator, discriminators, their optimizers and the moving average of the generator's weights.

    Everything random in an update follows from (seed, update, rank), so a training that was interrupted goes on as if
    it had not been.

    Args:
        config: sizes of the generator.
        settings: of the training.
        seed: of weights and dropout.
        device: where it all runs.
        ranks: this process among several.
        amp: automatic mixed precision (CUDA only): float16 in the convolutions, losses in float32.
    """

    def __init__(
        self,
        config: VocoderConfig,
        settings: TrainingSettings,
        seed: int = 1,
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
        amp: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.settings, self.seed, self.ranks = config, settings, seed, ranks
        self.device, self.update = torch.device(device), 0
        if amp and self.device.type != "cuda":
            raise ValueError(f"mixed precision needs a CUDA device, this training runs on {self.device}")
        torch.manual_seed(seed)
        self.generator = build_generator(config, settings.init_std)
        sizes = settings.discriminators
        self.discriminators = None
        if settings.adversarial_from is not None:
            self.discriminators = Discriminators(sizes.periods, sizes.period_channels, sizes.scales, sizes.scale_width)
        self.mel_loss = MelLoss(settings.mel_resolutions, settings.floor) if settings.mel_weight else None
        self.stft_loss = StftLoss(settings.stft_resolutions, settings.floor) if settings.stft_weight else None
        self.to(self.device)
        self.amp = amp
        self.scalers = {name: torch.amp.GradScaler(self.device.type, enabled=amp) for name in self._networks()}
        self.optimizers = {
            name: torch.optim.AdamW(
                network.parameters(), settings.learning_rate, settings.betas, weight_decay=settings.weight_decay
            )
            for name, network in self._networks().items()
        }
        self.average = {name: value.detach().clone() for name, value in self.generator.named_parameters()}

    def _networks(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"generator": self.generator}
        if self.discriminators is not None:
            networks["discriminators"] = self.discriminators
        return networks

    def step(self, batch: CropBatch) -> dict[str, Tensor]:
        """One update of the networks; returns the losses, detached.

        Raises:
            ValueError: a loss that is not finite; nothing is updated.
        """
        torch.manual_seed((self.seed * 1_000_003 + self.update) * 4099 + self.ranks.rank)
        self.generator.train()
        rate = learning_rate(self.settings, self.update)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            window = self.generator(batch.frames, batch.lengths)
        fake = crop_waveform(window.float(), batch.offsets, self.settings.crop_frames)
        logs: dict[str, Tensor] = {}
        start = self.settings.adversarial_from
        adversarial = start is not None and self.update >= start
        if adversarial:
            logs |= self._discriminator_step(fake.detach(), batch.samples)
        logs |= self._generator_step(batch, fake, adversarial)
        self._follow_average()
        self.update += 1
        return logs

    def _discriminator_step(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            judged_real, judged_fake = self.discriminators(real), self.discriminators(fake)
        loss = discriminator_loss([j.score for j in judged_real], [j.score for j in judged_fake])
        self._descend("discriminators", loss)
        return {"discriminator_loss": loss.detach()}

    def _generator_step(self, batch: CropBatch, fake: Tensor, adversarial: bool) -> dict[str, Tensor]:
        settings, logs = self.settings, {}
        total = fake.new_zeros(())
        if self.mel_loss is not None:
            logs["mel_loss"] = self.mel_loss(fake, batch.samples)
            total = total + settings.mel_weight * logs["mel_loss"]
        if self.stft_loss is not None:
            logs["stft_loss"] = self.stft_loss(fake, batch.samples)
            total = total + settings.stft_weight * logs["stft_loss"]
        if adversarial:
            judged_real, judged_fake = self._judge_for_generator(batch.samples, fake)
            logs["adversarial_loss"] = generator_adversarial_loss([j.score for j in judged_fake])
            logs["feature_loss"] = feature_matching_loss(
                [j.features for j in judged_real], [j.features for j in judged_fake]
            )
            total = total + settings.adversarial_weight * logs["adversarial_loss"]
            total = total + settings.feature_weight * logs["feature_loss"]
        if self.generator.dur_predictor is not None:
            predicted = self.generator.log_durations(batch.units, batch.unit_lengths)
            logs["duration_loss"] = duration_loss(predicted, batch.durations, batch.unit_lengths)
            total = total + settings.duration_weight * logs["duration_loss"]
        logs["gradient_norm"] = self._descend("generator", total)
        return {"loss": total.detach()} | {name: value.detach() for name, value in logs.items()}

    def _judge_for_generator(self, real: Tensor, fake: Tensor) -> tuple[list[Judgement], list[Judgement]]:
        """Both judged by discriminators that stay as they are: gradients reach the generator alone."""
        self.discriminators.requires_grad_(False)
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            judged = self.discriminators(real), self.discriminators(fake)
        self.discriminators.requires_grad_(True)
        return judged

    def _descend(self, name: str, loss: Tensor) -> Tensor:
        """Backward, mean over processes, clipping, one step of an optimizer; returns the gradient's norm."""
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        # Mixed precision overflows now and then: its scaler skips the update and scales less, down to this.
        if not self.amp and not bool(torch.isfinite(loss)) or self.amp and scaler.get_scale() < _SMALLEST_SCALE:
            raise ValueError(f"update {self.update}: the loss of the {name} is {loss.item()}: lower the learning rate")
        parameters = list(self._networks()[name].parameters())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        average_gradients(parameters, self.ranks)
        scaler.unscale_(optimizer)
        limit = self.settings.clip_norm if name == "generator" else None
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        scaler.step(optimizer)
        scaler.update()
        return norm

    @torch.no_grad()
    def _follow_average(self) -> None:
        # A short memory at the beginning: the first weights say nothing.
        decay = min(self.settings.ema_decay, (1 + self.update) / (10 + self.update))
        names = list(self.average)
        current = dict(self.generator.named_parameters())
        torch._foreach_lerp_(
            [self.average[name] for name in names], [current[name].detach() for name in names], 1 - decay
        )

    def exported(self) -> UnitVocoder:
        """The vocoder as it is used: averaged weights, weight norm folded, in evaluation mode, on this device."""
        state = fold_weight_norm(self.average if self.settings.ema_decay else self.generator.state_dict())
        model = UnitVocoder(self.config).to(self.device)
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    def training_state(self) -> dict[str, Any]:
        """Everything that :meth:`resume` needs, as tensors and plain values."""
        return {
            "update": self.update,
            "seed": self.seed,
            "config": self.config.to_dict(),
            "settings": self.settings.to_dict(),
            "networks": {name: network.state_dict() for name, network in self._networks().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "average": self.average,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`training_state`.

        Discriminators that the state lacks (the training had none so far) start afresh.

        Raises:
            ValueError: the state belongs to a vocoder of other sizes, or to units of other centroids.
        """
        _same_vocoder(state["config"], self.config.to_dict())
        sizes = self.settings.to_dict()["discriminators"]
        if "discriminators" in state["networks"] and state["settings"]["discriminators"] != sizes:
            raise ValueError(
                f"the checkpoint's discriminators are {state['settings']['discriminators']}, the configuration's "
                f"{sizes}: train in another folder"
            )
        for name, network in self._networks().items():
            if name in state["networks"]:
                network.load_state_dict(state["networks"][name])
                self.optimizers[name].load_state_dict(state["optimizers"][name])
                if self.amp and state["scalers"][name]:
                    self.scalers[name].load_state_dict(state["scalers"][name])
        for name, value in self.average.items():
            value.copy_(state["average"][name])
        self.update = int(state["update"])


def _same_vocoder(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if saved["unit_hash"] != wanted["unit_hash"]:
        raise ValueError(
            f"the checkpoint was trained on units of centroids {saved['unit_hash']}, the manifest's are of "
            f"{wanted['unit_hash']}: train in another folder"
        )
    different = [name for name in wanted if saved.get(name) != wanted[name]]
    if different:
        name = different[0]
        raise ValueError(
            f"the checkpoint's vocoder has {name} {saved.get(name)}, the configuration {wanted[name]}: train in "
            "another folder"
        )


def mean_losses(logs: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Means over several updates; a loss that only some of them have counts where it is."""
    values: dict[str, list[float]] = {}
    for entry in logs:
        for name, value in entry.items():
            values.setdefault(name, []).append(float(value))
    return {name: sum(items) / len(items) for name, items in values.items()}
