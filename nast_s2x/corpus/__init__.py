"""Corpora: utterances and their tables, data folders, vocabularies, preparation. No fairseq here."""

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.manifest import Manifest, Problem, read_lists, read_manifest, write_manifest
from nast_s2x.corpus.utterance import Units, Utterance

__all__ = ["AudioRef", "Manifest", "Problem", "Units", "Utterance", "read_lists", "read_manifest", "write_manifest"]
