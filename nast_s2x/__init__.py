"""nast_s2x: non-autoregressive end-to-end simultaneous speech-to-any translation.

The package itself imports nothing heavy: reach for the rooms (``nast_s2x.inference``, ``nast_s2x.network``, ...)
that you need. fairseq is only needed to train, SimulEval only to evaluate.
"""

__version__ = "0.1.0"
