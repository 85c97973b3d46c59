"""The HTTP side: reads requests, calls the gateway, writes responses."""
