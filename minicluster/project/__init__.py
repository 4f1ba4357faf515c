"""A project's own clusters, from ``minicluster.yaml``. Nothing here knows an engine.

find (which file) -> load (YAML with positions; dotenv and interpolate fill variables in; schema says what a file may
contain) -> definition (the arguments of an ``up``) and config (the file with everything filled in). scaffold writes a
new file.
"""
