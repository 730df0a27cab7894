"""Decisions without I/O: strategies, accumulators, cohorts and the state machine of a round."""
