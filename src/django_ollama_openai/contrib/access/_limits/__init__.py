"""Limits: which of them apply to a request, and the account that is kept of each."""
