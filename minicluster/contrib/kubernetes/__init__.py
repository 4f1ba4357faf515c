"""Kubernetes: prints a cluster's kubeconfig, and merges it into the user's own.

Works with any profile that writes a file ``kubeconfig`` to the client's folder.
"""
