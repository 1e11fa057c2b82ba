"""
Traces.
"""
