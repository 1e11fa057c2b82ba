"""
Logs.
"""
