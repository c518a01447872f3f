"""Intervals and tests for paired, clustered scores."""
