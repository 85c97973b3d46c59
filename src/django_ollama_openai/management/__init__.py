"""``manage.py ollama``: the engines and their models, from the command line."""
