"""Features of HuBERT checkpoints in fairseq's own format, where fairseq is installed."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import logging
import os
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from nast_s2x.checkpoints.fairseq import load_checkpoint, settings
from nast_s2x.corpus.utterance import UNIT_SAMPLES
from nast_s2x.errors import CheckpointError
from nast_s2x.frontend.speech_models import FAIRSEQ_VARIANCE_FLOOR
from nast_s2x.units.speech_models.base import TransformerFeatures, check_convolutions, check_layer, weights_digest

_REQUIRED = ("encoder_layers", "encoder_embed_dim", "encoder_attention_heads", "conv_feature_layers")
#: Parameters that only training uses.
_TRAINING_ONLY = ("final_proj.", "label_embs_concat", "target_glu.")


class _Ignored:
    """Replaces a class that checkpoints contain beside their weights: accepts its content and drops it."""

    def __init__(self, *_args: object) -> None:
        """Accept the arguments in the pickle."""

    def __setstate__(self, _state: object) -> None:
        """Drop the object's content."""


# Label dictionaries, which a checkpoint may contain besides settings and numbers.
_LABELS = ((_Ignored, "fairseq.data.dictionary.Dictionary"),)


class FairseqHubertFeatures(TransformerFeatures):
    """A layer of a fairseq ``HubertModel``: what ``extract_features(output_layer=layer)`` returns."""

    name = "fairseq"
    variance_floor = FAIRSEQ_VARIANCE_FLOOR

    @classmethod
    def load(cls, path: str | os.PathLike[str], layer: int = 11, device: str = "cpu") -> FairseqHubertFeatures:
        """Load a checkpoint, weights-only; samples are normalised if its task configuration has ``normalize``.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: more than data, not a HuBERT checkpoint, or weights that do not fit; names the file.
            ConfigError: no such layer.
            ModuleNotFoundError: fairseq is not installed.
        """
        state = load_checkpoint(path, _LABELS)
        cfg, task = settings(state, "model"), settings(state, "task")
        missing = [name for name in _REQUIRED if name not in cfg]
        if missing or "encoder.pos_conv.0.bias" not in state["model"]:
            raise CheckpointError(
                f"{path}: not a HuBERT checkpoint: lacks {(missing or ['encoder.pos_conv.0.bias'])[0]}"
            )
        convolutions = _convolutions(cfg["conv_feature_layers"], path)
        check_convolutions(convolutions, str(path))
        check_layer(layer, int(cfg["encoder_layers"]), str(path))
        model = _build(cfg, task, state["model"], path)
        model.encoder.layers = model.encoder.layers[:layer]
        digest = weights_digest(model.state_dict().values())
        model.eval().to(device)
        width, normalize = int(cfg["encoder_embed_dim"]), bool(task.get("normalize", False))
        return cls(model, model.encoder.layers, layer, convolutions, width, normalize, digest, device)

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """See :class:`TransformerFeatures`."""
        # fairseq pads the frames to a multiple and removes the padding after the last layer.
        return super().frames(samples)[: max(0, (len(samples) - self.min_samples) // UNIT_SAMPLES + 1)]

    def _run(self, batch: Tensor) -> None:
        self.model.extract_features(batch, output_layer=self.layer)

    def _table(self, output: Tensor) -> Tensor:
        return output[:, 0]  # time first


def _convolutions(text: object, path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """(kernel, stride) from a text such as ``[(512,10,5)] + [(512,3,2)] * 4``, which fairseq evaluates as Python."""
    try:
        layers = _value(ast.parse(str(text).strip(), mode="eval").body)
        if not isinstance(layers, list) or not layers:
            raise ValueError("not a list of layers")
        return [(int(kernel), int(stride)) for _, kernel, stride in layers]
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: conv_feature_layers is not a list of convolutions: {str(text)[:80]!r}"
        ) from error


def _value(node: ast.expr) -> Any:
    """Evaluate lists and tuples of small whole numbers, joined by + and repeated by *; nothing else is accepted."""
    if isinstance(node, ast.Constant) and type(node.value) is int and 0 < node.value < 1 << 16:
        return node.value
    if isinstance(node, ast.List) and len(node.elts) <= 64:
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple) and len(node.elts) == 3:
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _value(node.left), _value(node.right)
        if isinstance(left, list) and isinstance(right, list) and len(left) + len(right) <= 64:
            return left + right
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _value(node.left), _value(node.right)
        if isinstance(left, list) and isinstance(right, int) and len(left) * right <= 64:
            return left * right
    raise ValueError(f"{ast.dump(node)[:40]} is not part of a list of convolutions")


def _build(cfg: dict[str, Any], task: dict[str, Any], weights: Mapping[str, Tensor], path: Any) -> Any:
    # fairseq logs whole configurations while it is imported and a model is built.
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        hubert = importlib.import_module("fairseq.models.hubert.hubert")
        values = _defaults(hubert.HubertConfig) | cfg | {"checkpoint_activations": False}
        values["label_rate"] = float(task.get("label_rate") or 50.0)
        network = SimpleNamespace(sample_rate=int(task.get("sample_rate", 16000)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # its weight norm is the old one
                model = hubert.HubertModel(SimpleNamespace(**values), network, [None])
        except (AttributeError, TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
            raise CheckpointError(f"{path}: fairseq cannot build its network ({error})") from error
    finally:
        logging.disable(before)
    model.remove_pretraining_modules()
    kept = {name: value for name, value in weights.items() if not name.startswith(_TRAINING_ONLY)}
    try:
        model.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the weights do not fit the network ({str(error).splitlines()[-1].strip()})"
        ) from error
    return model.float()


def _defaults(config: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found
