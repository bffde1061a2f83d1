"""What must be known of a backend before it serves: the test of its nonces, and known answers at each start."""
