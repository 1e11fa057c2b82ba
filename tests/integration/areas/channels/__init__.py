"""
Channels and what is watched of them, on a real Redis.
"""
