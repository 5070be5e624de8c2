"""Normalised momentum against plain steps in bilevel learning ("Bilevel Optimization under Unbounded Smoothness: A New
Algorithm and Convergence Analysis", BO-REP, arXiv 2401.09587): a recurrent encoder of text, exploding and benign, the
user's text or table, Amazon reviews and tweets at paper scale.
"""

from throughline.claims.bo_rep.claim import SurvivesExplodingHypergradients

__all__ = ["SurvivesExplodingHypergradients"]
