"""One module per paper, named by its slug: the headline claim as an experiment."""
