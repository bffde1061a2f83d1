"""What operates Strongroom: set-up, launchers of the real parts, demo, bench. Nobody imports it."""
