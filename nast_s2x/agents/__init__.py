"""SimulEval agents: adapters of :class:`nast_s2x.inference.TranslationStream`.

Importing this package needs SimulEval.
"""
