"""Screening: which destinations and deposits must not be dealt with before a person has looked (DESIGN section 6)."""
