"""Whitelists: destinations that an owner has listed, since when each is known, and proofs of whose they are."""
