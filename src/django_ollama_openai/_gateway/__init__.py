"""The use cases, one a module. Each is a flow that serves sync and async alike (``flow``)."""
