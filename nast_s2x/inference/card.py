"""Model card and SimulEval configuration files of a bundle."""

from __future__ import annotations

from torch.nn import Module

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.inference.policies import streaming_default
from nast_s2x.inference.system import System

TEXT_AGENT = "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent"
SPEECH_AGENT = "nast_s2x.agents.speech_to_speech.NastSpeechToSpeechAgent"


def simuleval_configs(system: System) -> dict[str, str]:
    """File name -> content for ``simuleval --system-dir BUNDLE [--system-config FILE]``.

    ``main.yaml`` is the streaming default; ``main-320.yaml``, ``main-offline.yaml`` ... are the policies of the
    training, one file each because SimulEval refuses an agent's own flags together with ``--system-dir``. These files
    are for text output. A bundle with a vocoder has the same for speech output: ``main-speech.yaml``,
    ``main-speech-320.yaml`` ...
    """
    agents = {"main": TEXT_AGENT} | ({"main-speech": SPEECH_AGENT} if system.vocoder is not None else {})
    configs: dict[str, str] = {}
    for prefix, agent in agents.items():
        configs[f"{prefix}.yaml"] = _simuleval_config(agent, streaming_default(system.trained))
        # Of several left contexts of a chunk size the first, which is also the default elsewhere.
        for policy in reversed(system.trained):
            configs[f"{prefix}-{policy.name}.yaml"] = _simuleval_config(agent, policy)
    return configs


def _simuleval_config(agent: str, policy: ChunkPolicy) -> str:
    lines = [f"agent_class: {agent}", "model: .", f"chunk_ms: {policy.name}"]
    if not policy.is_offline:
        lines += [f"lookahead_ms: {policy.lookahead_ms}", f"wait_chunks: {policy.wait_chunks}"]
    if policy.chunk_ms is not None and policy.left_chunks is not None:
        lines.append(f"left_ms: {policy.left_chunks * policy.chunk_ms}")
    return "\n".join(lines) + "\n"


def model_card(system: System) -> str:
    """Model card made from the system's own values; ``nast-s2x export --card FILE`` replaces it."""
    config, info = system.model.config, system.info
    origin = info.origin
    units = "" if not system.has_units else " and speech" if system.vocoder is not None else " and speech units"
    lines = [
        "# Speech translation bundle",
        "",
        f"{info.source_lang or 'Source language'} speech to {info.target_lang or 'target language'} text{units}, "
        "non-autoregressive and simultaneous (NAST-S2X; Ma et al., ACL 2024).",
        "",
    ]
    if info.example:
        lines += [f"**An example, not a general translator.** {info.example}", ""]
    lines += [
        f"* {num_parameters(system.model)}: encoder {config.encoder_layers} layers, text decoder "
        f"{config.decoder_layers}" + (f", unit decoder {config.unit_layers}" if system.has_units else ""),
        f"* {config.text_vocab} text labels" + (f", {system.num_units} units" if system.has_units else ""),
        f"* trained for: {'; '.join(str(policy) for policy in system.trained)}",
        f"* weights: {origin.get('updates', 0)} updates, {origin.get('averaged', 1)} checkpoint(s) averaged, "
        f"{origin.get('checkpoint', 'unknown')} format",
    ]
    if system.has_recognition is not None:
        lines.append(f"* source transcript (`--transcript`): {'yes' if system.has_recognition else 'no, not trained'}")
    if system.units is not None and system.units.hash:
        lines.append(f"* units of the centroids {system.units.hash}")
    if system.vocoder is not None:
        lines.append(f"* vocoder: unit vocoder of {num_parameters(system.vocoder)} in `vocoder/`, 16 kHz")
    return "\n".join([*lines, "", "Use:", "", *_commands(system), ""])


def num_parameters(model: Module) -> str:
    """Number of parameters as text, such as ``1.2M parameters``."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}M parameters"


def _commands(system: System) -> list[str]:
    simuleval = (
        "    simuleval --system-dir THIS_FOLDER{} --source LIST --target REFERENCES --source-segment-size 40 "
        "--output RESULTS"
    )
    commands = [
        "    nast-s2x translate RECORDING.wav --model THIS_FOLDER",
        "    nast-s2x generate RECORDING.wav --model THIS_FOLDER",
        simuleval.format(""),
    ]
    if system.vocoder is not None:
        speech = " --system-config main-speech.yaml"
        commands += [
            "    nast-s2x translate RECORDING.wav --model THIS_FOLDER --speech --output SPOKEN",
            "    nast-s2x generate RECORDING.wav --model THIS_FOLDER --speech --output-wav SPOKEN",
            simuleval.format(speech) + " --latency-metrics StartOffset EndOffset NumChunks",
        ]
    return commands
