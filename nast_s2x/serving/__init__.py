"""Serving: sessions of many users over one engine, and the protocols that they speak."""
