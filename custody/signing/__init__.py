"""Our transactions on the chains: versions, signatures, broadcast, confirmation, replacement."""
