"""
What the whole cluster shares, in Redis: its keys, and what lies under them.
"""
