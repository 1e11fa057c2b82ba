"""
Sync runs.
"""
