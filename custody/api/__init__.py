"""The REST API: authenticate, parse, one call into a slice, render. It has no keys and decides nothing."""
