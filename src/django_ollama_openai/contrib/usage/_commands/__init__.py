"""Subcommands of ``manage.py ollama``."""
