"""Equations on meshes that claims learn to solve, solved by scikit-fem: diffusion in a plate, a flow, a beam."""
