"""What a bundle's folder holds besides data: the model card and SimulEval's configuration files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nast_s2x.chunking import ChunkGeometry
from nast_s2x.inference.geometries import describe

if TYPE_CHECKING:
    from nast_s2x.inference.bundle import Bundle

AGENT_CLASS = "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent"


def simuleval_configs(bundle: Bundle) -> dict[str, str]:
    """File name -> content for ``simuleval --system-dir BUNDLE [--system-config FILE]``.

    ``main.yaml`` is the streaming default; ``main-320.yaml``, ``main-offline.yaml`` ... are the other geometries of the
    training, because SimulEval refuses an agent's own flags together with ``--system-dir``.
    """
    configs = {f"main-{geometry.name}.yaml": _simuleval_config(geometry) for geometry in bundle.trained.geometries}
    return {"main.yaml": _simuleval_config(bundle.trained.streaming_default), **configs}


def _simuleval_config(geometry: ChunkGeometry) -> str:
    lines = [f"agent_class: {AGENT_CLASS}", "model: .", f"chunk_ms: {geometry.name}"]
    if not geometry.offline:
        lines += [f"lookahead_ms: {geometry.lookahead_ms}", f"wait_chunks: {geometry.wait_chunks}"]
    return "\n".join(lines) + "\n"


def model_card(bundle: Bundle) -> str:
    """A card with everything the bundle itself knows; ``nast-s2x export --card FILE`` replaces it."""
    config, origin = bundle.model.config, bundle.origin
    parameters = sum(parameter.numel() for parameter in bundle.model.parameters())
    target = f"{bundle.target_lang or 'target language'} text" + (" and speech units" if bundle.has_units else "")
    lines = [
        "# Speech translation bundle",
        "",
        f"{bundle.source_lang or 'Source language'} speech to {target}, non-autoregressive and simultaneous "
        "(NAST-S2X; Ma et al., ACL 2024).",
        "",
    ]
    if bundle.example:
        lines += [f"**An example, not a general translator.** {bundle.example}", ""]
    lines += [
        f"* {parameters / 1e6:.1f}M parameters: encoder {config.encoder_layers} layers, text decoder "
        f"{config.decoder_layers}" + (f", unit decoder {config.unit_layers}" if bundle.has_units else ""),
        f"* {config.text_vocab} text labels" + (f", {bundle.num_units} units" if bundle.has_units else ""),
        f"* trained for: {'; '.join(describe(geometry) for geometry in bundle.trained.geometries)}",
        f"* weights: {origin.get('updates', 0)} updates, {origin.get('averaged', 1)} checkpoint(s) averaged, "
        f"{origin.get('checkpoint', 'unknown')} format",
        "",
        "Use:",
        "",
        "    nast-s2x translate RECORDING.wav --model THIS_FOLDER",
        "    nast-s2x generate RECORDING.wav --model THIS_FOLDER",
        "    simuleval --system-dir THIS_FOLDER --source LIST --target REFERENCES --source-segment-size 40 "
        "--output RESULTS",
        "",
    ]
    return "\n".join(lines)
