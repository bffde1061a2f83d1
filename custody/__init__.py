"""The online service: deposits, withdrawals, ledger, their storage, and the processes that run them."""
