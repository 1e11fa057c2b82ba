"""
Queues: what waits in the broker, for how long, and who consumes it.
"""
