"""Prometheus metrics of completions: ``GET metrics`` below every mount."""
