"""The bundle that never goes back, time that never goes back, and what officers and verifiers hand over."""
