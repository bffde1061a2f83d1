"""The only part of the EVM family that meets the network."""
