"""fairseq criterions: the losses combined and logged (fairseq does not import this folder; the task does)."""
