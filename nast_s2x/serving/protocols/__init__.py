"""Protocols: messages of a client to audio and settings, emissions to messages; no input or output of their own."""
