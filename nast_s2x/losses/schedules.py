"""Schedules over training updates."""

from __future__ import annotations

import re

from nast_s2x.errors import ConfigError

_POINT = re.compile(r"(?P<value>[0-9.eE+-]+)@(?P<number>[0-9.]+)(?P<suffix>[kKmM]?)")
_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000}


class GlancingSchedule:
    """Piecewise linear glancing ratio, written ``START:VALUE@UPDATE:VALUE@UPDATE...``; constant after the last point.

    >>> schedule = GlancingSchedule("0.5:0.3@50k")
    >>> schedule(0), round(schedule(25_000), 6), schedule(80_000)
    (0.5, 0.4, 0.3)

    Args:
        text: "0.3" (constant) or e.g. "0.5:0.3@50k:0.1@100k"; ``k`` and ``M`` stand for thousand and million.
    Raises:
        ConfigError: text of another form, ratios outside [0, 1], updates that do not increase.
    """

    def __init__(self, text: str) -> None:
        self.text = str(text).strip()
        start, *rest = self.text.split(":")
        points = [(0, self._ratio(start))]
        for part in rest:
            match = _POINT.fullmatch(part.strip())
            if match is None:
                raise ConfigError(f"glancing ratio {self.text!r}: {part!r} is not of the form VALUE@UPDATE, as 0.3@50k")
            update = round(self._number(match["number"]) * _SUFFIX[match["suffix"].lower()])
            if update <= points[-1][0]:
                raise ConfigError(f"glancing ratio {self.text!r}: updates must increase, got {update}")
            points.append((update, self._ratio(match["value"])))
        self.points = tuple(points)

    def _number(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"glancing ratio {self.text!r}: {text!r} is not a number") from None

    def _ratio(self, text: str) -> float:
        ratio = self._number(text)
        if not 0.0 <= ratio <= 1.0:
            raise ConfigError(f"glancing ratio {self.text!r}: a ratio must lie in [0, 1], got {ratio}")
        return ratio

    def __call__(self, update: int) -> float:
        """Ratio at an update (0 = the first)."""
        for (left, before), (right, after) in zip(self.points, self.points[1:], strict=False):
            if update < right:
                return before + (after - before) * max(update - left, 0) / (right - left)
        return self.points[-1][1]

    def __repr__(self) -> str:
        return f"GlancingSchedule({self.text!r})"
