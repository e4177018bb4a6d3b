"""What a bundle's folder holds besides data: the model card and SimulEval's configuration files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import Module

from nast_s2x.chunking import ChunkGeometry
from nast_s2x.inference.geometries import describe

if TYPE_CHECKING:
    from nast_s2x.inference.bundle import System

TEXT_AGENT = "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent"
SPEECH_AGENT = "nast_s2x.agents.speech_to_speech.NastSpeechToSpeechAgent"


def simuleval_configs(bundle: System) -> dict[str, str]:
    """File name -> content for ``simuleval --system-dir BUNDLE [--system-config FILE]``.

    ``main.yaml`` is the streaming default; ``main-320.yaml``, ``main-offline.yaml`` ... are the other geometries of the
    training, because SimulEval refuses an agent's own flags together with ``--system-dir``. These write text; a bundle
    with a vocoder has the same with speech as ``main-speech.yaml``, ``main-speech-320.yaml`` ...
    """
    geometries = bundle.trained.geometries
    agents = {"main": TEXT_AGENT} | ({"main-speech": SPEECH_AGENT} if bundle.vocoder is not None else {})
    configs: dict[str, str] = {}
    for prefix, agent in agents.items():
        configs[f"{prefix}.yaml"] = _simuleval_config(agent, bundle.trained.streaming_default)
        configs |= {f"{prefix}-{geometry.name}.yaml": _simuleval_config(agent, geometry) for geometry in geometries}
    return configs


def _simuleval_config(agent: str, geometry: ChunkGeometry) -> str:
    lines = [f"agent_class: {agent}", "model: .", f"chunk_ms: {geometry.name}"]
    if not geometry.offline:
        lines += [f"lookahead_ms: {geometry.lookahead_ms}", f"wait_chunks: {geometry.wait_chunks}"]
    return "\n".join(lines) + "\n"


def model_card(bundle: System) -> str:
    """A card with everything the bundle itself knows; ``nast-s2x export --card FILE`` replaces it."""
    config, origin = bundle.model.config, bundle.origin
    units = "" if not bundle.has_units else " and speech" if bundle.vocoder is not None else " and speech units"
    lines = [
        "# Speech translation bundle",
        "",
        f"{bundle.source_lang or 'Source language'} speech to {bundle.target_lang or 'target language'} text{units}, "
        "non-autoregressive and simultaneous (NAST-S2X; Ma et al., ACL 2024).",
        "",
    ]
    if bundle.example:
        lines += [f"**An example, not a general translator.** {bundle.example}", ""]
    lines += [
        f"* {num_parameters(bundle.model)}: encoder {config.encoder_layers} layers, text decoder "
        f"{config.decoder_layers}" + (f", unit decoder {config.unit_layers}" if bundle.has_units else ""),
        f"* {config.text_vocab} text labels" + (f", {bundle.num_units} units" if bundle.has_units else ""),
        f"* trained for: {'; '.join(describe(geometry) for geometry in bundle.trained.geometries)}",
        f"* weights: {origin.get('updates', 0)} updates, {origin.get('averaged', 1)} checkpoint(s) averaged, "
        f"{origin.get('checkpoint', 'unknown')} format",
    ]
    if bundle.unit_hash:
        lines.append(f"* units of the centroids {bundle.unit_hash}")
    if bundle.vocoder is not None:
        lines.append(f"* voice: a unit vocoder of {num_parameters(bundle.vocoder)} in `vocoder/`, 16 kHz")
    return "\n".join([*lines, "", "Use:", "", *_commands(bundle), ""])


def num_parameters(model: Module) -> str:
    """``1.2M parameters``."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}M parameters"


def _commands(bundle: System) -> list[str]:
    simuleval = (
        "    simuleval --system-dir THIS_FOLDER{} --source LIST --target REFERENCES --source-segment-size 40 "
        "--output RESULTS"
    )
    commands = [
        "    nast-s2x translate RECORDING.wav --model THIS_FOLDER",
        "    nast-s2x generate RECORDING.wav --model THIS_FOLDER",
        simuleval.format(""),
    ]
    if bundle.vocoder is not None:
        speech = " --system-config main-speech.yaml"
        commands += [
            "    nast-s2x translate RECORDING.wav --model THIS_FOLDER --speech --output SPOKEN",
            "    nast-s2x generate RECORDING.wav --model THIS_FOLDER --speech --output-wav SPOKEN",
            simuleval.format(speech) + " --latency-metrics StartOffset EndOffset NumChunks",
        ]
    return commands
