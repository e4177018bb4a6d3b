"""Speed and memory of this implementation and of reference implementations, measured in one run."""
