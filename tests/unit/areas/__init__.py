"""
What can be watched, one folder each as in the package.
"""
