"""Builders of small models and adapters, for tests and benchmarks."""
