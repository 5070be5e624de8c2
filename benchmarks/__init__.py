"""Ours against the peer, side by side: ``python -m benchmarks [PAPER ...]``."""
