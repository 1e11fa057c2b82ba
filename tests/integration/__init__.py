"""
Tests on real servers and real workers.
"""
