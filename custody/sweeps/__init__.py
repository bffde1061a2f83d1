"""Sweeps: money moves between our own addresses where that pays: forwarders into the treasury, many coins into one."""
