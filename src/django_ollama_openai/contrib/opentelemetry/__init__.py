"""OpenTelemetry traces and metrics of completions, by its conventions for generative AI."""
