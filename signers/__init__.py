"""Signers: they hold the keys and decide for themselves. Importable without the online service."""
