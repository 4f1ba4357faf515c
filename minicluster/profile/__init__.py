"""From a folder with ``profile.yaml`` to a spec. Pure: nothing here knows an engine.

folders, catalog (which profiles there are) -> yamldoc (YAML with positions) -> overrides (``--set``) -> load, with
schema (what a profile may contain) and references (what a schema cannot check) -> resolve, with variables, scope,
template, deferred, addressing, host_ports and image_tag -> model.spec (plain data). spec_cache returns the spec of a
profile that has not changed without all of this; scaffold writes a new profile.
"""
