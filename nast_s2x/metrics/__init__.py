"""Quality and latency as pure functions."""
