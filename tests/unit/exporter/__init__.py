"""
Tests of the exporter, in memory.
"""
