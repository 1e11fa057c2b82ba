"""
What the cluster shares: the parts that need no server.
"""
