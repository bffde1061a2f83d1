"""Transactions of the EVM family: one sender, its nonces in a row, and gas at a price."""
