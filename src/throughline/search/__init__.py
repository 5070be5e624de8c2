"""Architectures and hyperparameters found by gradient, or from experience."""
