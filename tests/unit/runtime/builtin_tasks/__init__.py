"""
The built-in tasks.
"""
