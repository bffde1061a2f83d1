"""Leaving without us: the recovery kit, made of the signed bundle alone (DESIGN section 1, promise 3)."""
