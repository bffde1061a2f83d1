"""Where keys are, and what signs with them."""
