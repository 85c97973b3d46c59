"""Running answers: recording them, and reading their streams."""
