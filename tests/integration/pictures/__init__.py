"""
The pictures of the dashboards.
"""
