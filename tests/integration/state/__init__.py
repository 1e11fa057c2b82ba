"""
What the cluster shares, on a real Redis.
"""
