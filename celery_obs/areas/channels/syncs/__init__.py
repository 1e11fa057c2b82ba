"""
Syncs: one movement of data between us and a channel, as one run.
"""
