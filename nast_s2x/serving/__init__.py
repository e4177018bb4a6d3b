"""Serving: sessions of many users over one engine, and their protocols."""
