from tests.contracts.conftest import no_connection_outlives_its_test

__all__ = ["no_connection_outlives_its_test"]
