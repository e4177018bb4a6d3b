"""A small random system for tests of inference: real vocabulary and CMVN, random weights, labels that vary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.frontend.cmvn import CmvnAccumulator
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.system import System, SystemInfo
from nast_s2x.labels import TextLabels, UnitLabels
from nast_s2x.network import NastConfig, NastModel
from nast_s2x.vocoder.config import DurationConfig, VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder

SENTENCES = """the small house is red
a big dog sleeps near the old house
the cats walk slowly to the river
where is the blue bird of the old man
she walked home and he slept
birds sing under the open window
""".splitlines()
CHINESE = """他说：今天天气很好，我们去河边走走吧。
那只大狗在老房子旁边睡着了。
小猫慢慢地走到河边去喝水。
我们用GPT翻译，他用BERT。
你喜欢喝茶还是咖啡？
昨天下了一场大雨，路上没有人。
""".splitlines()
NUM_UNITS = 20
UNIT_HASH = "0123456789abcdef"


def make_signal(seconds: float, seed: int = 0, rate: int = 16000) -> NDArray[np.float32]:
    """Tones and noise that change every 60 to 250 ms, so that features keep changing; float32 (n,)."""
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    pieces: list[NDArray[np.float64]] = []
    while sum(map(len, pieces)) < total:
        n = int(rng.uniform(0.06, 0.25) * rate)
        tone = np.sin(2 * np.pi * rng.uniform(100, 3500) * np.arange(n) / rate)
        pieces.append(rng.uniform(0.0, 0.3) * tone + rng.uniform(0.0, 0.1) * rng.standard_normal(n))
    return np.concatenate([*pieces, np.zeros(0)])[:total].astype(np.float32)


def make_vocabulary(
    folder: Path, sentences: Sequence[str] = SENTENCES, size: int = 45, **options: Any
) -> tuple[Path, Path]:
    """Train a SentencePiece model on a few sentences, with its own ``options``; (model, dictionary)."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "spm"
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([*sentences] * 5),
        model_prefix=str(prefix),
        vocab_size=size,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    pieces = [processor.IdToPiece(i) for i in range(3, processor.GetPieceSize())]
    TextLabels(pieces).save(folder / "dict.txt")
    return Path(f"{prefix}.model"), folder / "dict.txt"


def make_model(text_vocab: int, units: bool, seed: int = 0, seconds: int = 32, relative: bool = False) -> NastModel:
    """A random network, 2 layers of 32; larger weights than at the start of training make its labels vary."""
    torch.manual_seed(seed)
    config = NastConfig(
        text_vocab=text_vocab,
        unit_vocab=NUM_UNITS + 5 if units else 0,
        conv_channels=8,
        encoder_dim=32,
        encoder_layers=2,
        encoder_heads=4,
        encoder_ffn_dim=64,
        decoder_dim=32,
        decoder_layers=2,
        decoder_heads=4,
        decoder_ffn_dim=64,
        unit_layers=2,
        max_text_positions=seconds * 25 // 2,
        max_unit_positions=seconds * 75,
        relative_positions=relative,
        unit_rotary=relative,
    )
    model = NastModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                # Weak attention outputs, since averaging over the sequence makes all slots alike.
                scale = 0.3 if "out_proj" in name and "attn" in name else 1.5
                parameter.normal_(0.0, 0.4 if "embed" in name else scale * parameter[0].numel() ** -0.5)
    return model


def centre_outputs(model: NastModel, features: torch.Tensor) -> None:
    """Standardise the hidden states over a recording; without it most slots have the same label."""
    for decoder in (model.decoder, model.unit_decoder):
        if decoder is None:
            continue
        norm, seen = decoder.layers[-1].final_layer_norm, []
        hook = norm.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        with torch.no_grad():
            model(features[None], None, ChunkPolicy(320))
            hook.remove()
            std, mean = torch.std_mean(seen[0], (0, 1))
            norm.weight /= std
            norm.bias.copy_((norm.bias - mean) / std)


def make_voice(
    num_units: int = NUM_UNITS, unit_hash: str | None = UNIT_HASH, durations: bool = True, seed: int = 0
) -> UnitVocoder:
    """A random vocoder of minimal size: units last 1 to 3 frames, samples have a deviation of about 0.2."""
    torch.manual_seed(seed)
    config = VocoderConfig(
        num_embeddings=num_units,
        embedding_dim=8,
        upsample_initial_channel=32,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        dur_predictor_params=DurationConfig(8, 8) if durations else None,
        unit_hash=unit_hash,
    )
    model = UnitVocoder(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 3:
            inputs = parameter.shape[0] if name.startswith("ups") else parameter[0].numel()
            parameter.normal_(0.0, (1.5 if name.startswith("ups") else 0.7) * inputs**-0.5)
    if model.dur_predictor is not None:
        model.dur_predictor.proj.weight.normal_(0.0, 0.1)
        model.dur_predictor.proj.bias.fill_(1.0)
    model.conv_post.weight *= 0.01  # so that tanh is almost linear
    model.conv_post.weight *= 0.2 / model(torch.arange(num_units)[None]).std()
    return model


def make_bundle(
    folder: Path,
    units: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    example: str | None = None,
    voice: bool = False,
    seconds: int = 32,
    relative: bool = False,
    language: str | None = "en",
    **vocabulary: Any,
) -> System:
    """A random system in memory, with its vocabulary in ``folder``.

    Its outputs are centred over a fixed recording, so that labels vary. With ``voice`` it has a tiny random vocoder,
    and units and vocoder name the same centroids. ``seconds``: of source that the model has positions for;
    ``relative``: it has relative positions, without end. ``vocabulary``: arguments of :func:`make_vocabulary`.
    """
    spm, dictionary = make_vocabulary(folder, **vocabulary)
    labels = TextLabels.load(dictionary, spm)
    features = fbank(make_signal(6.0, seed=99))
    cmvn = CmvnAccumulator().add(features).result()
    model = make_model(labels.size, units, seed, seconds, relative)
    centre_outputs(model, cmvn(features))
    bundle = System(
        model=model,
        text=labels,
        units=UnitLabels(NUM_UNITS, UNIT_HASH if voice else None) if units else None,
        cmvn=cmvn,
        trained=ChunkPolicy.parse("160,320,640,offline"),
        vocoder=make_voice() if voice else None,
        info=SystemInfo(source_lang="fr", target_lang=language, example=example),
    )
    return bundle.to(dtype=dtype)


def unsealed(bundle: Path) -> Path:
    """Remove the digests from the configuration of a bundle, so that changed files reach the checks behind them."""
    path = bundle / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in ("files", "sha256")}))
    return bundle
