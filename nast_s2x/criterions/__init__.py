"""fairseq criterion: combines and logs the losses (fairseq does not import this folder; the task does)."""
