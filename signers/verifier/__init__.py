"""The verifier (zone 2): a second pair of eyes on ledger and chains, with a node of its own.

It replays customers' ledgers and finds their deposits on its own node, signs verdicts that warm and cold payments
need, tells signers what became of what they signed, and notices a signer that was restored from a copy. It shares
nothing with the online service but the database's rows, which it takes as claims: what lines and transfers mean is
written down here again, on purpose.
"""
