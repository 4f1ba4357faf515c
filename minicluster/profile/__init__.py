"""From a folder with ``profile.yaml`` to a spec. Pure: nothing here knows an engine.

folders, catalog (which profiles there are) -> yamldoc (YAML with positions) -> overrides (``--set``) -> load, with schema
(what a profile may say) and references (what a schema cannot check) -> resolve, with template, scope, addressing,
host_ports, image_tag and deferred -> model.spec (plain data). spec_cache skips all of it where nothing has changed.
"""
