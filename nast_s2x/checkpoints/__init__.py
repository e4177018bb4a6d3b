"""Weight files of this project and of others, read as data only."""
