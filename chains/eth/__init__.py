"""The EVM family: pure parts, and `node` as its only part that knows the network."""
