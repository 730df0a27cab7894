"""The algorithms, one module each, named after the paper. `aggregator.core.registry` finds them by itself."""
