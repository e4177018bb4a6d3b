"""fairseq models: the network registered under its architecture names (imported by fairseq's ``--user-dir``)."""
