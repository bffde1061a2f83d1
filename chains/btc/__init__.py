"""Bitcoin: pure parts (scripts, addresses, transactions, blocks, coin selection, fees, PSBT) and `node`."""
