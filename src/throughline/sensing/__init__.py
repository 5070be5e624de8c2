"""Sensors as layers: where to put the pixels."""
