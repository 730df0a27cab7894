"""The aggregation engine: rounds, strategies, transport. Knows no Django; talks to the world through `aggregator.ports`."""
