"""Knowledge distillation: a manifest whose translations are those of a system (Kim and Rush, 2016, sequence level)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from nast_s2x.corpus.manifest import Manifest
from nast_s2x.corpus.utterance import Units, Utterance
from nast_s2x.inference.generation import GeneratedRow
from nast_s2x.inference.system import System


def distilled_rows(
    table: Manifest, results: Mapping[int, GeneratedRow], system: System, with_units: bool
) -> Iterator[Utterance]:
    """Rows of a manifest with the system's translations in place of the references.

    Recordings of the reference translation (``target_audio``) and its units are removed, since they say something
    else; the units are those of the system if ``with_units``. Rows without a result are copied as they are (other
    splits), those whose translation failed or is empty are left out.

    Args:
        results: place in ``table.rows`` -> result.
    """
    for place, row in enumerate(table.rows):
        result = results.get(place)
        if result is None:
            yield row
        elif result.translation is not None and result.translation.text:
            codes = tuple(result.translation.units) if with_units else ()
            units = Units(codes, hash=system.unit_hash) if codes else None
            yield replace(row, target_text=result.translation.text, target_audio=None, units=units)
