"""A small random vocoder with output as loud as that of a trained one: errors are visible, nothing is clipped."""

from __future__ import annotations

import torch

from nast_s2x.vocoder.config import DurationConfig, VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder

NUM_UNITS = 20


def vocoder_config(
    durations: bool = True, num_units: int = NUM_UNITS, unit_hash: str | None = None, lookahead: int | None = None
) -> VocoderConfig:
    """The published structure (kernels, dilations, rates, and so the receptive field) with few channels."""
    return VocoderConfig(
        num_embeddings=num_units,
        embedding_dim=16,
        upsample_initial_channel=64,
        dur_predictor_params=DurationConfig(16, 16) if durations else None,
        unit_hash=unit_hash,
        lookahead_frames=lookahead,
    )


def make_vocoder(
    durations: bool = True,
    seed: int = 0,
    num_units: int = NUM_UNITS,
    unit_hash: str | None = None,
    lookahead: int | None = None,
) -> UnitVocoder:
    """A vocoder whose random weights keep the scale of signals; samples of about 0.2, durations of 1 to 6 frames."""
    torch.manual_seed(seed)
    model = UnitVocoder(vocoder_config(durations, num_units, unit_hash, lookahead)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 3 and not name.startswith("dur_predictor"):
            inputs = parameter.shape[0] if name.startswith("ups") else parameter[0].numel()
            parameter.normal_(0.0, (1.5 if name.startswith("ups") else 0.5) * inputs**-0.5)
    if durations:
        model.dur_predictor.proj.weight.normal_(0.0, 0.15)
        model.dur_predictor.proj.bias.fill_(1.3)
    return _level(model)


def make_smooth_vocoder(seed: int = 0) -> UnitVocoder:
    """A random vocoder with bell-shaped kernels: neighbouring samples are as similar as in speech, unlike in noise."""
    model = make_vocoder(seed=seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 3 and not name.startswith("dur_predictor"):
            bell = torch.hann_window(weight.shape[2] + 2, periodic=False)[1:-1]
            strength = weight.norm(dim=2, keepdim=True) * weight.sum(2, keepdim=True).sign()
            weight.copy_(0.6 * strength * bell / bell.norm())
    return _level(model)


def _level(model: UnitVocoder) -> UnitVocoder:
    """Scale the last convolution so that samples have mean 0 and deviation 0.2 (before the last tanh)."""
    seen: list[torch.Tensor] = []
    hook = model.conv_post.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(torch.randint(model.config.num_embeddings, (1, 60)))
    hook.remove()
    scale = 0.2 / seen[0].std()
    model.conv_post.weight *= scale
    model.conv_post.bias.copy_(scale * (model.conv_post.bias - seen[0].mean()))
    return model
