"""
What people and scripts ask the exporter about the cluster, and have it do.
"""
