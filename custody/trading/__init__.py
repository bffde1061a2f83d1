"""The trading core: a pure matching engine, the service around it, and its faces.

The engine (`market`, `commands`, `events`, `fees`, `accounts`, `book`, `matching`, `engine`, `state`, `codec`) does no
I/O, reads no clock and knows no database: commands in, events out, the same bytes at every replay.
"""
