"""Launchers of the real parts on this machine, each in its own directory and on free loopback ports.

They serve `strongroom up`, the demo, the bench and the tests alike. Nothing they start outlives the process
that started it, even when that is killed.
"""
