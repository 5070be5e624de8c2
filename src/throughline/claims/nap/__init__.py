"""A search policy learned from earlier searches against a Gaussian process ("End-to-End Meta-Bayesian Optimisation with
Transformer Neural Processes", NAP, arXiv 2305.15930): support vector machines on 25 data sets by default, the user's
own tables, HPO-B and XGBoost at paper scale.
"""

from throughline.claims.nap.claim import SearchesFromExperience

__all__ = ["SearchesFromExperience"]
