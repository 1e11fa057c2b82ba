"""
Calls to channels.
"""
