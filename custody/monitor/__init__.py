"""The deposit monitor: one leader per chain follows blocks, records facts, and credits deposits."""
