"""Data folders: manifests, features, vocabulary, text, augmentation and their preparation. No fairseq here."""
