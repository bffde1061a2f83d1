"""The whole system on this machine: quorum, bundle, key-sets, database, every process, under one supervisor.

Made for trying, demonstrating and testing. It plays all roles of the key ceremony itself and keeps the
officers' keys in its data directory, which a real installation must never do.
"""
