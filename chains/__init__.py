"""Chain adapters: what a chain is to the rest of the system, and one package per family of chains.

`types`, `ports` and `errors` are shared. In each family's package everything is pure except `node`.
"""
