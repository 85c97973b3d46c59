"""Metrics of completions for Prometheus: ``GET metrics`` below every mount."""
