"""Withdrawals: from a caller's signed order to a settled payment."""
