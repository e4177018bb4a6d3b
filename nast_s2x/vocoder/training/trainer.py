"""Updates of vocoder training: HiFi-GAN's losses (Kong et al., 2020) and the durations of units.

In several processes the gradients are averaged by :class:`torch.nn.parallel.DistributedDataParallel`. An update reads
nothing back from the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import weight_norm

from nast_s2x.device import without_memory
from nast_s2x.errors import CheckpointError, ConfigError, NastError
from nast_s2x.vocoder.checkpoint import fold_weight_norm
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig, check_unit_hash
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.training.data import CropBatch
from nast_s2x.vocoder.training.discriminators import DiscriminatorOutput, Discriminators
from nast_s2x.vocoder.training.losses import (
    MelLoss,
    StftLoss,
    discriminator_loss,
    duration_loss,
    feature_matching_loss,
    generator_adversarial_loss,
)
from nast_s2x.vocoder.training.settings import TrainingSettings

_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
_SMALLEST_SCALE = 2.0**-10
MOST_PARAMETERS = 300_000_000
"""Largest network that is trained; HiFi-GAN's discriminators have 71 million parameters, its generator 13 million."""


def world() -> tuple[int, int]:
    """Rank of this process and number of training processes; (0, 1) without a process group."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def build_generator(config: VocoderConfig, init_std: float | None) -> UnitVocoder:
    """Build a generator with initial weights and weight norm on its convolutions, as it is trained.

    Args:
        config: sizes.
        init_std: standard deviation of the initial weights of the upsampling, residual and last convolutions; ``None``
            = PyTorch's initialisation.
    """
    model = UnitVocoder(config)
    for name, module in model.named_modules():
        if isinstance(module, _CONVOLUTIONS) and not name.startswith("dur_predictor"):
            if init_std is not None and name != "conv_pre":
                nn.init.normal_(module.weight, 0.0, init_std)
            weight_norm(module)
    return model


def check_sizes(config: VocoderConfig, settings: TrainingSettings) -> None:
    """Count the parameters before any memory is taken for them.

    Raises:
        ConfigError: a network with more than :data:`MOST_PARAMETERS` parameters; names it.
    """
    with without_memory():
        networks: dict[str, nn.Module] = {"vocoder": UnitVocoder(config)}
        if settings.adversarial_from is not None:
            networks["discriminators"] = Discriminators(**vars(settings.discriminators))
    for name, network in networks.items():
        size = sum(parameter.numel() for parameter in network.parameters())
        if size > MOST_PARAMETERS:
            raise ConfigError(
                f"{name}: the sizes of the configuration make {size:,} parameters, more than {MOST_PARAMETERS:,}"
            )


def learning_rate(settings: TrainingSettings, update: int) -> float:
    """Learning rate of an update, counted from 0."""
    rate = settings.learning_rate
    if update < settings.warmup_updates:
        return rate * (update + 1) / settings.warmup_updates
    if settings.final_fraction is None:
        return rate * settings.decay ** (update / settings.decay_every)
    done = min(1.0, (update - settings.warmup_updates) / max(1, settings.max_updates - settings.warmup_updates))
    return rate * (settings.final_fraction + (1 - settings.final_fraction) * 0.5 * (1 + math.cos(math.pi * done)))


def crop_waveform(waveform: Tensor, offsets: Tensor, crop_frames: int) -> Tensor:
    """Cut the crop out of each generated window: (B, 320 T), (B,) -> (B, 320 crop_frames)."""
    positions = torch.arange(crop_frames * UNIT_SAMPLES, device=waveform.device)
    return waveform.gather(1, offsets[:, None] * UNIT_SAMPLES + positions)


class _GeneratorPass(nn.Module):
    """Waveform and log durations in one forward: DistributedDataParallel averages the gradients of one forward."""

    def __init__(self, generator: UnitVocoder, amp: torch.dtype | None) -> None:
        super().__init__()
        self.generator, self.amp = generator, amp

    def forward(
        self, frames: Tensor, lengths: Tensor | None, units: Tensor, unit_lengths: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(frames.device.type, self.amp, enabled=self.amp is not None):
            waveform = self.generator(frames, lengths)
        durations = None
        if self.generator.dur_predictor is not None:
            durations = self.generator.log_durations(units, unit_lengths)
        return waveform.float(), durations


class _DiscriminatorPass(nn.Module):
    """Outputs for real and for generated speech in one forward."""

    def __init__(self, discriminators: Discriminators, amp: torch.dtype | None) -> None:
        super().__init__()
        self.discriminators, self.amp = discriminators, amp

    def forward(self, real: Tensor, fake: Tensor) -> tuple[list[DiscriminatorOutput], list[DiscriminatorOutput]]:
        with torch.autocast(real.device.type, self.amp, enabled=self.amp is not None):
            return self.discriminators(real), self.discriminators(fake)


class VocoderTrainer:
    """Generator, discriminators, their optimizers and the moving average of the generator's weights.

    Everything random in an update follows from (seed, update, rank), so an interrupted training continues exactly as
    an uninterrupted one.

    Args:
        config: sizes of the generator.
        settings: of the training.
        seed: of initial weights and dropout.
        device: of the networks.
        amp: number type of the convolutions in automatic mixed precision, float16 (CUDA only, with loss scaling) or
            bfloat16; losses stay in float32. None: everything in float32.

    Attributes:
        update: number of updates done.
    """

    def __init__(
        self,
        config: VocoderConfig,
        settings: TrainingSettings,
        seed: int = 1,
        device: torch.device | str = "cpu",
        amp: torch.dtype | None = None,
    ) -> None:
        self.config, self.settings, self.seed, self.amp = config, settings, seed, amp
        self.device, self.update = torch.device(device), 0
        if amp == torch.float16 and self.device.type != "cuda":
            raise ConfigError(f"mixed precision in float16 needs a CUDA device, this training runs on {self.device}")
        check_sizes(config, settings)
        torch.manual_seed(seed)
        self.generator = build_generator(config, settings.init_std)
        self.networks: dict[str, nn.Module] = {"generator": self.generator.to(self.device)}
        self._passes: dict[str, nn.Module] = {"generator": _GeneratorPass(self.generator, amp)}
        self.discriminators: Discriminators | None = None
        if settings.adversarial_from is not None:
            self.discriminators = Discriminators(**vars(settings.discriminators)).to(self.device)
            self.networks["discriminators"] = self.discriminators
            self._passes["discriminators"] = _DiscriminatorPass(self.discriminators, amp)
        if world()[1] > 1:
            self._passes = {name: DistributedDataParallel(one) for name, one in self._passes.items()}
        self.mel_loss = MelLoss(settings.mel_resolutions, settings.floor).to(self.device)
        self.stft_loss = StftLoss(settings.stft_resolutions, settings.floor).to(self.device)
        self.scalers = {
            name: torch.amp.GradScaler(self.device.type, enabled=amp == torch.float16) for name in self.networks
        }
        # Fused optimizers take `found_inf`, a number on the device: 1 skips an update without a read by the host.
        self.optimizers = {
            name: torch.optim.AdamW(
                network.parameters(),
                settings.learning_rate,
                settings.betas,
                weight_decay=settings.weight_decay,
                fused=True,
            )
            for name, network in self.networks.items()
        }
        self.average = {name: value.detach().clone() for name, value in self.generator.named_parameters()}
        self._failure = torch.full((4,), -1.0, device=self.device)  # update, index of the network, its loss, its norm
        self._stop = torch.zeros((), device=self.device)  # 1 after a gradient that is not finite

    def step(self, batch: CropBatch) -> dict[str, Tensor]:
        """Do one update of the networks.

        If a gradient is not finite, this and all later updates change nothing; :meth:`check` reports it.

        Returns:
            the losses, on the device, detached.
        """
        torch.manual_seed((self.seed * 1_000_003 + self.update) * 4099 + world()[0])
        self.generator.train()
        rate = learning_rate(self.settings, self.update)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = batch.to(self.device)
        window, durations = self._passes["generator"](batch.frames, batch.lengths, batch.units, batch.unit_lengths)
        fake = crop_waveform(window, batch.offsets, self.settings.crop_frames)
        logs: dict[str, Tensor] = {}
        start = self.settings.adversarial_from
        is_adversarial = start is not None and self.update >= start
        if is_adversarial:
            logs |= self._discriminator_step(fake.detach(), batch.samples)
        logs |= self._generator_step(batch, fake, durations, is_adversarial)
        self._update_average()
        self.update += 1
        return logs

    def _discriminator_step(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        of_real, of_fake = self._passes["discriminators"](real, fake)
        loss = discriminator_loss([output.score for output in of_real], [output.score for output in of_fake])
        self._descend("discriminators", loss)
        return {"discriminator_loss": loss.detach()}

    def _generator_step(
        self, batch: CropBatch, fake: Tensor, durations: Tensor | None, is_adversarial: bool
    ) -> dict[str, Tensor]:
        settings, logs = self.settings, {}
        total = fake.new_zeros(())
        if settings.mel_weight:
            logs["mel_loss"] = self.mel_loss(fake, batch.samples)
            total = total + settings.mel_weight * logs["mel_loss"]
        if settings.stft_weight:
            logs["stft_loss"] = self.stft_loss(fake, batch.samples)
            total = total + settings.stft_weight * logs["stft_loss"]
        if is_adversarial:
            of_real, of_fake = self._frozen_discriminators(batch.samples, fake)
            logs["adversarial_loss"] = generator_adversarial_loss([output.score for output in of_fake])
            logs["feature_loss"] = feature_matching_loss(
                [output.features for output in of_real], [output.features for output in of_fake]
            )
            total = total + settings.adversarial_weight * logs["adversarial_loss"]
            total = total + settings.feature_weight * logs["feature_loss"]
        if durations is not None:
            logs["duration_loss"] = duration_loss(durations, batch.durations, batch.unit_lengths)
            total = total + settings.duration_weight * logs["duration_loss"]
        logs["gradient_norm"] = self._descend("generator", total)
        return {"loss": total.detach()} | {name: value.detach() for name, value in logs.items()}

    def _frozen_discriminators(
        self, real: Tensor, fake: Tensor
    ) -> tuple[list[DiscriminatorOutput], list[DiscriminatorOutput]]:
        """Outputs of the discriminators, with gradients for the generator and none for the discriminators' weights."""
        assert self.discriminators is not None
        self.discriminators.requires_grad_(False)
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            outputs = self.discriminators(real), self.discriminators(fake)
        self.discriminators.requires_grad_(True)
        return outputs

    def _descend(self, name: str, loss: Tensor) -> Tensor:
        """Backward pass, clipping and one step of the optimizer; returns the norm of the averaged gradient."""
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        limit = self.settings.clip_norm if name == "generator" else None
        norm = nn.utils.clip_grad_norm_(self.networks[name].parameters(), math.inf if limit is None else limit)
        if not self.amp:  # in mixed precision single overflows are normal: the scaler skips these updates
            self._note_failure(name, loss.detach(), norm)
            optimizer.found_inf = self._stop
        scaler.step(optimizer)
        scaler.update()
        return norm

    def _note_failure(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """Store, on the device, the first loss or gradient that is not finite."""
        place = [torch.full_like(loss, float(value)) for value in (self.update, list(self.networks).index(name))]
        is_first = (self._failure[0] < 0) & ~(torch.isfinite(loss) & torch.isfinite(norm))
        self._failure = torch.where(is_first, torch.stack([*place, loss, norm]), self._failure)
        # The averaged gradient is the same in all processes, so all of them stop at the same update.
        self._stop = torch.maximum(self._stop, (~torch.isfinite(norm)).float())

    def check(self) -> None:
        """Read from the device whether all updates so far had finite losses and gradients.

        Raises:
            NastError: one had not; names the update, the network and the value. Nothing has been updated since.
        """
        update, index, loss, norm = self._failure.tolist()
        if update >= 0:
            name = list(self.networks)[int(index)]
            value = f"loss of the {name} is {loss}" if not math.isfinite(loss) else f"gradient of the {name} is {norm}"
            raise NastError(f"update {int(update)}: the {value}: lower the learning rate")
        for name, scaler in self.scalers.items():
            if self.amp and scaler.get_scale() < _SMALLEST_SCALE:
                raise NastError(
                    f"update {self.update}: the {name} overflows in mixed precision at any scale: lower the learning "
                    "rate, or train with --no-amp"
                )

    @torch.no_grad()
    def _update_average(self) -> None:
        # A smaller decay in the first updates, so that the initial weights do not count.
        decay = min(self.settings.ema_decay, (1 + self.update) / (10 + self.update))
        names = list(self.average)
        current = dict(self.generator.named_parameters())
        torch._foreach_lerp_(
            [self.average[name] for name in names], [current[name].detach() for name in names], 1 - decay
        )

    def exported(self) -> UnitVocoder:
        """Return the vocoder for synthesis: averaged weights, weight norm folded, eval mode, on this device."""
        state = fold_weight_norm(self.average if self.settings.ema_decay else self.generator.state_dict())
        model = UnitVocoder(self.config).to(self.device)
        model.load_state_dict(state)
        return model.for_inference()

    def training_state(self) -> dict[str, Any]:
        """Return everything that :meth:`resume` needs, as tensors and plain values."""
        return {
            "update": self.update,
            "seed": self.seed,
            "config": self.config.to_dict(),
            "settings": self.settings.to_dict(),
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "average": self.average,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`training_state`.

        Discriminators that the state lacks, because the training had none so far, keep their initial weights.

        Raises:
            NastError: the state belongs to a vocoder of other sizes, or to units of other centroids.
        """
        _check_same_vocoder(state["config"], self.config.to_dict())
        sizes = self.settings.to_dict()["discriminators"]
        if "discriminators" in state["networks"] and state["settings"]["discriminators"] != sizes:
            raise CheckpointError(
                f"the checkpoint's discriminators are {state['settings']['discriminators']}, the configuration's "
                f"{sizes}: train in another folder"
            )
        for name, network in self.networks.items():
            if name in state["networks"]:
                network.load_state_dict(state["networks"][name])
                self.optimizers[name].load_state_dict(state["optimizers"][name])
                if self.amp and state["scalers"][name]:
                    self.scalers[name].load_state_dict(state["scalers"][name])
        for name, value in self.average.items():
            value.copy_(state["average"][name])
        self.update = int(state["update"])


def _check_same_vocoder(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    check_unit_hash(
        saved["unit_hash"] or "not recorded",
        wanted["unit_hash"] or "not recorded",
        "the checkpoint's units",
        "the manifest's",
    )
    names = [*wanted, *(name for name in saved if name not in wanted)]
    different = next((name for name in names if saved.get(name) != wanted.get(name)), None)
    if different is not None:
        raise CheckpointError(
            f"the checkpoint's vocoder has {different} {saved.get(different)}, the configuration "
            f"{wanted.get(different)}: train in another folder"
        )


def mean_losses(logs: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Average the losses of several updates; a loss that only some updates have is averaged over these."""
    values: dict[str, list[Tensor]] = {}
    for entry in logs:
        for name, value in entry.items():
            values.setdefault(name, []).append(value)
    return {name: float(torch.stack(items).double().mean()) for name, items in values.items()}
