"""From a folder with ``profile.yaml`` to a spec. Pure: nothing here knows an engine.

catalog (which profiles there are) -> yamldoc (YAML with positions) -> model (what a profile may say)
-> overrides (what the user changed) -> resolve (templates, addresses, ports) -> spec (plain data).
"""
