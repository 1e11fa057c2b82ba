"""
Workers.
"""
