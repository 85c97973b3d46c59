"""Traces and metrics of completions for OpenTelemetry, after its conventions for generative AI."""
