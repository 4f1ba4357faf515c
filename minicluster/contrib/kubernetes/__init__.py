"""Kubernetes: a cluster's kubeconfig, and its place in the user's own.

It needs a profile that writes a file ``kubeconfig`` for the client, whatever profile that is.
"""
