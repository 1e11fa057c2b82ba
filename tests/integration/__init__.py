"""
<<<<<<< HEAD
Tests.
=======
Tests with real servers and real workers.
>>>>>>> exporter
"""
