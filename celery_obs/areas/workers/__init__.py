"""
Workers: their pools, their processes and whether they are up.
"""
