"""The container engine: the only package that imports docker. The rest knows :mod:`minicluster.engine.protocol`."""
