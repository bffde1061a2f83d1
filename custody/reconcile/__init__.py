"""Reconciliation: the ledger against itself, our records against the ledger, and all of it against the chain.

The identity, per wallet and asset, exact to the base unit at any moment that one database snapshot shows:

```
  what the ledger says we own            -balance(chain_assets)
+ mined deposits that are not credited   confirming, held, quarantined, below_minimum (and suspense not yet booked)
- payments mined and not settled         amounts and network fee of the version that is in the best chain
+ payments settled and no longer mined   amounts and network fee that were booked (a reorg, until it is reversed)
- spent by strangers, not booked         our coins that a transaction which is none of ours has used
+ booked as lost, no longer spent        (a reorg, until the booking is reversed)
= coins                                  unspent receipts in the best chain that the monitor has committed
= what the node has                      its own UTXO set of the key-set's descriptors, at the same block
```

Why it holds: a mined deposit adds its units to the coins and, once credited, to the ledger. A transaction of ours
turns inputs I into payments P, change C and a fee F, with I = P + C + F: coins fall by I - C = P + F when it is mined,
the ledger by P + F when it is settled. Between those two moments (either may come first after a reorg) the difference
is one of the two terms in the middle. Each is read from the facts (consumptions, receipts) on one side and from what
was booked on the other, so no lag of a worker or of the monitor makes a difference, and nothing else moves either side.
"""
