"""Approvals: what people have signed about withdrawals that the policy asks them about, and what follows from it."""
