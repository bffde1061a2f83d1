"""The double-entry ledger: accounts, transfers, holds, statement lines."""
