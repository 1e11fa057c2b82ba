"""
Settings.
"""
