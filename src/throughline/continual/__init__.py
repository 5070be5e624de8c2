"""Learning from streams without forgetting."""
