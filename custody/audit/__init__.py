"""What operators do by hand: who may, what the policy says, and the record of it that nobody can edit unseen."""
