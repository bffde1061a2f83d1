"""Customers: who owns addresses, deposits and balances."""
