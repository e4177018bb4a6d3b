"""Hostile content: files that are damaged, of other types and sizes than they should be, or made to run code."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from random import Random
from typing import Any

import torch
import yaml

CANARY = "executed"
"""Name of the file that hostile code would make in the working directory."""
_ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 7, 2**31, 10**9, 10**18, -(10**30), 0.5, -0.0, 1e-300, 1e308, math.inf, math.nan),
    *(
        "",
        "x",
        " ",
        "\t",
        "\n",
        "0",
        "-1",
        "1e9",
        "nan",
        "no",
        "../../outside",
        "/dev/zero",
        "/",
        ".",
        "\x00",
        "\x1b[2J",
    ),
    *(
        "\x1b[2J",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "$\\frac{$",
        "%s%n",
        "\u202e\u2066",
        "\ufeff",
        "é" * 300,
        "x" * 100_000,
    ),
    *([], [[]], {}, [None] * 50, {"": {}}, {"a": [{}]}, [1, "2", None], [[1, 2], [3]]),
)


def odd(rng: Random) -> Any:
    """A value that no setting expects."""
    return copy.deepcopy(rng.choice(_ODD))


def changed(value: Any, rng: Random) -> Any:
    """A copy of a tree of tables, lists and values with one to three of its nodes replaced, removed or added."""
    result = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(result))
        if not places:
            return odd(rng)
        holder, key = rng.choice(places)
        action = rng.random()
        if action < 0.12:
            del holder[key]
        elif action < 0.2 and isinstance(holder, dict):
            holder[rng.choice(("other", "", "__class__", key + "_"))] = odd(rng)
        elif action < 0.26 and isinstance(holder, list):
            holder.insert(key, odd(rng))
        elif action < 0.4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((-1, 0, 2, holder[key] + 1, holder[key] * 2, holder[key] * 1000, 0.5))
        else:
            holder[key] = odd(rng)
    return result


def _places(value: Any) -> Any:
    """Every (container, key) of a tree."""
    if isinstance(value, dict):
        for key in list(value):
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from _places(value[index])


def damaged(data: bytes, rng: Random) -> bytes:
    """Bytes cut off, flipped, overwritten, repeated or replaced; most of the changes near the beginning."""
    content = bytearray(data)
    action = rng.randrange(9)
    place = rng.randrange(max(1, min(len(content), rng.choice((16, 64, 512, 10**9)))))
    if action == 0:
        return bytes(content[:place])
    if action == 1:
        return rng.choice((b"", b"\0", b"junk", b"\xff\xfe\0\0" * 8, rng.randbytes(300), b"PK\x03\x04", b"\x80\x02."))
    if action == 2:
        return bytes(content) + rng.randbytes(rng.choice((1, 100, 5000)))
    if action == 3:
        return bytes(content[place:])
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        place = rng.randrange(max(1, min(len(content), rng.choice((16, 64, 512, 10**9)))))
        if action == 4:
            content[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
        elif action == 5:
            content[place : place + 8] = rng.randbytes(8)
        elif content:
            content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


def json_text(data: bytes, rng: Random) -> bytes:
    """A JSON file with changed values, or no JSON."""
    choice = rng.random()
    if choice < 0.12:
        return damaged(data, rng)
    if choice < 0.2:
        nested = rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b'{"format":' + b"[" * 50_000 + b"]" * 50_000 + b"}"))
        return rng.choice(
            (nested, b"9" * 5000, b"null", b"[]", b'"text"', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b"{} {}")
        )
    return json.dumps(changed(json.loads(data), rng)).encode()


def json_lines(data: bytes, rng: Random) -> bytes:
    """JSON lines with one changed, repeated, missing or damaged."""
    lines = data.splitlines()
    if not lines or rng.random() < 0.1:
        return damaged(data, rng)
    place = rng.randrange(len(lines))
    action = rng.random()
    if action < 0.08:
        lines.insert(place, lines[place])
    elif action < 0.14:
        del lines[place]
    elif action < 0.2:
        lines.insert(place, rng.choice((b"", b"null", b"[]", b"\xff\xff", b"\0", b"x" * 10**6)))
    else:
        lines[place] = json_text(lines[place], rng).replace(b"\n", b" ")
    return b"\n".join(lines) + rng.choice((b"\n", b"\n", b""))


_YAML = (
    f"!!python/object/apply:os.system ['touch {CANARY}']",
    f"a: !!python/object/new:subprocess.Popen [['touch', '{CANARY}']]",
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n"
        for old, new in zip("abcdefgh", "bcdefghi")
    ),
    "[" * 100_000,
    "- " * 100_000,
    "? " * 100_000,
    "a: " * 3000 + "1",
    "- 1\n- 2\n",
    "null\n",
    "a: 0x" + "f" * 20_000,
    "? [1, 2]\n: x\n",
    "a: 2026-13-45\n",
    "<<: *nowhere\n",
    "\tx: 1\n",
)  # fmt: skip


def yaml_text(data: bytes, rng: Random) -> bytes:
    """A YAML file with changed values, with code, or no YAML."""
    choice = rng.random()
    if choice < 0.12:
        return damaged(data, rng)
    if choice < 0.3:
        extra = rng.choice(_YAML)
        return (data.decode() + "\n" + extra if rng.random() < 0.4 else extra).encode()
    return yaml.safe_dump(changed(yaml.safe_load(data), rng), allow_unicode=True).encode("utf-8", "surrogatepass")


_CELLS = (
    *("", " ", "\x00", "-1", "0", "1e9", "9" * 5000, "nan", "x" * 100_000, "../../../etc/passwd", "/dev/zero", "-"),
    *(
        "\x1b[2J",
        "<b>",
        "=1+1",
        "a:0:-1",
        "sound.wav:0:99999999999",
        "sound.wav:-5:3",
        "x.zip:0:10",
        "\u202e",
        "\ufeff",
    ),
    *("'; drop", "1 2 x", "1 2 999999999", "e\u0301", "\ud800", "\u2028", "%00", "~", "C:\\x", "file:///etc/passwd"),
)


def table(data: bytes, rng: Random) -> bytes:
    """A tab-separated table with changed cells, columns or line ends."""
    rows = [line.split("\t") for line in data.decode().rstrip("\n").split("\n")]
    action = rng.random()
    if action < 0.1:
        return damaged(data, rng)
    row = rng.randrange(len(rows)) if action < 0.35 else rng.randrange(min(1, len(rows) - 1), len(rows))
    for _ in range(rng.choice((1, 1, 2, 4))):
        rows[row][rng.randrange(len(rows[row]))] = rng.choice(_CELLS)
    if action < 0.2:
        rows[row] = rows[row][:-1] or [""]
    elif action < 0.27:
        rows.insert(row, list(rows[row]))
    elif action < 0.3:
        rows[row] = rows[row] * 20
    text = rng.choice(("\n", "\n", "\n", "\r\n", "\n\n")).join("\t".join(cells) for cells in rows)
    return (rng.choice(("", "", "", "\ufeff")) + text + rng.choice(("\n", "\n", ""))).encode("utf-8", "surrogatepass")


def text_lines(data: bytes, rng: Random) -> bytes:
    """Lines of text with one replaced, repeated or missing."""
    lines = data.decode().split("\n")
    if rng.random() < 0.15:
        return damaged(data, rng)
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        lines[place : place + 1] = rng.choice(
            ([rng.choice(_CELLS)], [rng.choice(_CELLS)], lines[place : place + 1] * 2, [])
        )
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


class _Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _calls() -> list[_Call]:
    import os
    import subprocess

    touch = f"touch {CANARY}"
    return [
        _Call(os.system, touch),
        _Call(subprocess.check_call, ["touch", CANARY]),
        _Call(eval, f"open({CANARY!r}, 'w').write('x')"),
        _Call(exec, f"open({CANARY!r}, 'w')"),
        _Call(open, CANARY, "w"),
        _Call(getattr, OrderedDict, "fromkeys"),
        _Call(bytearray, 10**12),
        _Call(torch.zeros, 10**6, 10**6),
        _Call(torch.load, CANARY),
    ]


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)


def _odd_tensor(rng: Random) -> Any:
    return rng.choice(
        (
            torch.zeros(()),
            torch.zeros(0),
            torch.zeros(1).expand(10**6, 10**6),
            torch.zeros(3, 2, dtype=torch.complex64),
            torch.zeros(3, dtype=torch.bool),
            torch.tensor([math.nan]),
            torch.tensor([math.inf]),
            torch.zeros(2, 2).to_sparse(),
            torch.empty(10**9, 10**6, device="meta"),
            _quantized(),
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(2, dtype=torch.float16),
            torch.zeros(1, 1, 1, 1, 1),
        )
    )


def torch_file(data: bytes, rng: Random) -> bytes:
    """A file of ``torch.save`` with other values and tensors, with calls of functions, or damaged."""
    choice = rng.random()
    if choice < 0.2:
        return damaged(data, rng)
    if choice < 0.35:
        call = rng.choice(_calls())
        if rng.random() < 0.4:
            return pickle.dumps({"model": call}, protocol=rng.choice((2, 4, 5)))
        return _saved({**_loaded(data), rng.choice(("model", "cfg", "extra", "args")): call})
    state = _loaded(data)
    if choice < 0.6:
        holder = next((state[name] for name in ("model", "generator") if name in state), state)
        name = rng.choice(sorted(holder))
        if rng.random() < 0.2:
            del holder[name]
        else:
            holder[name if rng.random() < 0.8 else name + "x"] = _odd_tensor(rng) if rng.random() < 0.75 else odd(rng)
        return _saved(state)
    rest = {name: value for name, value in state.items() if name not in ("model", "generator", "last_optimizer_state")}
    weights = {name: value for name, value in state.items() if name in ("model", "generator")}
    mixed = changed(rest, rng) if rest else odd(rng)
    return _saved({**mixed, **weights} if isinstance(mixed, dict) and rng.random() < 0.9 else mixed)


def _loaded(data: bytes) -> dict[str, Any]:
    from nast_s2x.checkpoints.safe_load import _allowed

    with _allowed(()):
        state = torch.load(io.BytesIO(data), weights_only=True)
    return {
        name: vars(value) if hasattr(value, "__dict__") and not isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def pickle_file(data: bytes, rng: Random) -> bytes:
    """A pickle with calls of functions, or damaged."""
    if rng.random() < 0.5:
        return damaged(data, rng)
    value: Any = rng.choice(_calls()) if rng.random() < 0.7 else odd(rng)
    for _ in range(rng.choice((0, 1, 3))):
        value = rng.choice(([value], {"cluster_centers_": value}, (value, value)))
    return pickle.dumps(value, protocol=rng.choice((0, 2, 4, 5)))


def zip_file(data: bytes, rng: Random) -> bytes:
    """An archive with damaged, missing, foreign or huge members (``.npz``)."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    file, source = io.BytesIO(), zipfile.ZipFile(io.BytesIO(data))
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        names = source.namelist()
        victim = rng.choice(names)
        for name in names:
            content = source.read(name)
            if name == victim:
                action = rng.randrange(5)
                if action == 0:
                    continue
                content = (damaged(content, rng), _npy_header(rng), b"\0" * 50_000_000, content)[action - 1]
                name = rng.choice((name, name, name, "../../outside", "/tmp/outside", "x" * 60_000))
            archive.writestr(name, content)
    return file.getvalue()


def npy_file(data: bytes, rng: Random) -> bytes:
    """An array with another header, or damaged."""
    return damaged(data, rng) if rng.random() < 0.5 else _npy_header(rng) + data[128:]


def _npy_header(rng: Random) -> bytes:
    shape = rng.choice(("(100000000000, 80)", "(-1, 80)", "()", "(80,)", "(3, 80)", "(2, 2, 2)", "(1e9,)", "(0, 80)"))
    kind = rng.choice(("<f4", "<f8", "<i8", "|O", "|S5", "<c8", "|V0", "<M8[s]", "?"))
    text = f"{{'descr': '{kind}', 'fortran_order': {rng.choice(('False', 'True', '7'))}, 'shape': {shape}, }}"
    header = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def safetensors_file(data: bytes, rng: Random) -> bytes:
    """Weights with another header: names, types, shapes, offsets; or damaged."""
    size = int.from_bytes(data[:8], "little")
    choice = rng.random()
    if choice < 0.3:
        return damaged(data, rng)
    if choice < 0.45:
        return rng.choice((2**63, 2**40, size + 10**6, size - 1, 0)).to_bytes(8, "little") + data[8:]
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(changed(header, rng)).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
