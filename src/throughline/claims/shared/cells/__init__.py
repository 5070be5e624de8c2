"""What the claims about architecture search share: data, supernet, search, and what an architecture is worth."""
