"""The whole system on this machine: quorum, bundle, key-sets, database, every process, under one supervisor.

Made for trying, demonstrating and testing. It plays everybody's role itself: its keys come from no ceremony, and the
officers' are in its data directory, which a real installation must never do.
"""
