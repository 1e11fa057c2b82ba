"""
Rules and alerts, held against time series by Prometheus's own tool.
"""
