"""Mesos and Marathon: small clients for their HTTP interfaces, and the commands of ``minicluster mesos``.

Addresses come from a :class:`minicluster.cluster.Cluster`, whatever profile it is of: one with the endpoints
``master`` and ``agent``, and ``marathon`` where there is one.
"""
