"""Adapters of :class:`nast_s2x.inference.TranslationStream`: SimulEval agents, a speech processor for simulstream.

Modules of agents need SimulEval, :mod:`nast_s2x.agents.simulstream` needs simulstream.
"""
