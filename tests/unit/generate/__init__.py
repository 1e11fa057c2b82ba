"""
The generator.
"""
