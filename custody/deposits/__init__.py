"""Deposits: from a sighting on a chain to a credit in the ledger, and back when the chain reorganises."""
