"""Evaluation: runs of SimulEval's evaluator, metrics that mean what they say, reports to look at and listen to."""
