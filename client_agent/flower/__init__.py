"""Clients written for Flower, as they are: those that its `start_client` starts, and its `ClientApp`."""
