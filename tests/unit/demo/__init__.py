"""
The demo.
"""
