"""
A database for Django that can die: SQLite, which looks whether its connection is alive as the backends of servers do.
"""
