"""``manage.py ollama``: manage the engines and their models on the command line."""
