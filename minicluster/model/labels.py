"""The labels that minicluster puts on everything that it creates: they are its only database."""

from __future__ import annotations

PREFIX = "io.minicluster."
CLUSTER = PREFIX + "cluster"  #: name of the cluster; on every container, network and volume
PROFILE = PREFIX + "profile"  #: name of the profile that it was created from
ROLE = PREFIX + "role"  #: a node's role
NODE = PREFIX + "node"  #: a node's name
SPEC = PREFIX + "spec"  #: on a container: hash of its node's spec; on a record volume: the whole spec, compressed
REVISION = PREFIX + "revision"  #: on a record volume: counts the changes of a cluster's spec
BUILD = PREFIX + "build"  #: on an image: PROFILE/NAME of the build that it comes from
PARTS = PREFIX + "parts"  #: on a node image: part -> version and source, as JSON
PART = PREFIX + "part"  #: on a part's image: its name and version
SOURCE = PREFIX + "source"  #: on a part's image: where it is from
LICENSE = PREFIX + "license"  #: on a part's image: its SPDX identifier
UNPINNED = PREFIX + "unpinned"  #: on a part's image: its checksum was not known before
FAULT = PREFIX + "fault"  #: on a helper container: the fault that it holds, as JSON
DISK = PREFIX + "disk"  #: on a volume that has the file of a node's file system: its size in bytes
REGISTRY = PREFIX + "registry"  #: on the local registry's container and volume: its port on this machine
PROJECT = PREFIX + "project"  #: path of the project file that the cluster was made from; on everything of it
LEASE = PREFIX + "lease"  #: owner and expiry; on every object of a temporary cluster
GENERATION = PREFIX + "lease-generation"  #: on a volume with a later lease: its number; the greatest counts
HOSTS = PREFIX + "hosts"  #: the hosts of a cluster that has several; on everything of it, and on a swarm that we made
HOST = PREFIX + "host"  #: on a container, and on a volume of a node: the host that it is for
ENCRYPTED = PREFIX + "encrypted"  #: on a network of several hosts: traffic between them is encrypted
