"""SimulEval agents: thin adapters of :class:`nast_s2x.inference.TranslationStream` (SimulEval is needed here)."""
