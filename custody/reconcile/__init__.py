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

On EVM chains a wallet is a key's address and all its forwarders, and has no coins but a balance. "Coins" in the
identity are then what blocks have brought and taken: receipts, less what our mined transactions paid (if they
succeeded) and their gas, and the variances that were booked. A sweep moves nothing between them but its gas. What the
node has at the same block (its balances, asked by the block's hash) is held against that:

- More than we know is money that came by a way which leaves no trace in what we read (to an address before we gave it
  out, by a contract's end, as a reward). Anybody can send it, so it stops nothing: once it is final it is booked to
  suspense.
- Less than we know stops paying. A token that is known to keep fees is the exception: what it kept in sweeps is booked
  as the house's network fee. If a final transaction that is none of ours has used our nonce, the loss is booked to
  suspense, after all paying has been halted.
- Keys that the bundle calls compromised are the other exception, on every chain: that strangers use them is known, and
  whoever has them could else stop all paying whenever he spends a little. It raises an alert, is booked as a loss once
  it is final, and stops nothing. What is missing there without a foreign use does.

Each such variance is found at a finalised block and counts while that is in the best chain.

The trading core's balances are held against the ledger's `trading` accounts likewise (`trading`): a difference stops
the paying and the settlements of its asset.
"""
