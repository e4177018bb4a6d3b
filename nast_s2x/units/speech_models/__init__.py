"""Self-supervised speech models whose layers become units."""
