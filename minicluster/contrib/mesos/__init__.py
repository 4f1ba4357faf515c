"""Mesos and Marathon: small clients of their HTTP APIs, and the commands of ``minicluster mesos``.

Addresses come from a :class:`minicluster.cluster.Cluster` of any profile that has the endpoints ``master`` and
``agent`` and, for Marathon, ``marathon``.
"""
