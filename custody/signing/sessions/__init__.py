"""Signing sessions: signatures of a vault's members over one version of a transaction, until they are enough."""
