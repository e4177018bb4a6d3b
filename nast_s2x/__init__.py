"""nast_s2x: non-autoregressive end-to-end simultaneous speech-to-any translation.

The package itself imports nothing: import the subpackages that you need, such as ``nast_s2x.inference``. fairseq is
needed for training only, SimulEval for the agents only.
"""

__version__ = "0.1.0"
