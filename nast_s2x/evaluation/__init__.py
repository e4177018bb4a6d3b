"""Evaluation: runs over a test set, scores of quality and latency, comparisons and reports."""
