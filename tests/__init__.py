"""
The tests: the second documentation.
"""
