"""Transactions of the Bitcoin family: coins in, payments and change out."""
