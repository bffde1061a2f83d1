"""What may happen: the signed documents (order, intent, evidence, bundle) and the rules that decide on them.

Pure: no I/O, no clock, no database. Both the online side and the signers import this package.
"""
