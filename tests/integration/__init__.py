"""
Tests with real servers and real workers.
"""
