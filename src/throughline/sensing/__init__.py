"""Sensors as layers, and signals that hide in what a camera sees."""
