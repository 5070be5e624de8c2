"""Mathematics that two or more papers share."""
