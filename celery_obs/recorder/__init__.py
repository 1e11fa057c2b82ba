"""
The metric files, both sides of one format: written by every process of a node, read and merged by the sidecar.
"""
