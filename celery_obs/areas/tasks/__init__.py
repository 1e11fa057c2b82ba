"""
Tasks: what happens to each message, from its publish to its outcome.
"""
