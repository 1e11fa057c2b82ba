"""
Channels and what is watched of them.
"""
