"""Readers of published corpora, one module each: folders as they were downloaded to :class:`Utterance` rows."""

from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut
from nast_s2x.corpus.converters.run import CORPORA, ConvertReport, convert

__all__ = ["CORPORA", "ConvertOptions", "ConvertReport", "Found", "LeftOut", "convert"]
