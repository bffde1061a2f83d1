"""What the tiers hold, beside what the bundle says they should."""
