"""Rehearsals of what people must be able to do on a bad day, on private networks, without people."""
