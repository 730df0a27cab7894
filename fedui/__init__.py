"""FedUI's Django project: one app a concept."""

__version__ = "0.1.0"
