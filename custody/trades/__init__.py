"""What the trading core may ask of the ledger: to settle its fills, and to move a customer's money in and out."""
