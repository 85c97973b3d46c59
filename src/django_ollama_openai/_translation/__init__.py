"""OpenAI's format to and from the engines'. Pure functions and stream state: no I/O, no Django."""
