"""Self-supervised speech models whose layers are features for units."""
