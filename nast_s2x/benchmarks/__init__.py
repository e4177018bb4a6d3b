"""Speed and memory of the parts, as ratios between two ways of doing the same work."""
