"""Shapes, bodies and poses through differentiable rendering."""
