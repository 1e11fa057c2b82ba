"""
Connections: the customers' accounts that are kept in sync.
"""
