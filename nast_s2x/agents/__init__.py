"""SimulEval agents: thin adapters of :class:`nast_s2x.inference.StreamingTranslator` (SimulEval is needed here)."""
