"""Operators and priors for equations and inverse problems."""
