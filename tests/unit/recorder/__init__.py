"""
The metric files, both sides.
"""
