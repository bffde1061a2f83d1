"""What a signer judges a request by: pure, and the same for every backend."""
