"""The labels that minicluster puts on everything it makes: they are its only database."""

from __future__ import annotations

PREFIX = "io.minicluster."
CLUSTER = PREFIX + "cluster"  #: name of the cluster; on every container, network and volume
PROFILE = PREFIX + "profile"  #: name of the profile it was made from
ROLE = PREFIX + "role"  #: a node's role
NODE = PREFIX + "node"  #: a node's name
SPEC = PREFIX + "spec"  #: on a container: hash of its node's spec; on a record volume: the whole spec, compressed
REVISION = PREFIX + "revision"  #: on a record volume: counts the changes of a cluster's spec
RECIPE = PREFIX + "recipe"  #: on an image: which recipe (PROFILE/NAME) it was built from
LEASE = PREFIX + "lease"  #: whose the cluster is and until when; on everything of a cluster that is not to stay
TERM = PREFIX + "term"  #: on a volume whose lease replaces that of everything else: a number; the greatest counts
