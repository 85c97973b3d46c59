"""The rows of conversations: reading, adding, deleting, and locks. Knows no HTTP."""
