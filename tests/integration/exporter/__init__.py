"""
The exporter with real brokers, over real sockets.
"""
