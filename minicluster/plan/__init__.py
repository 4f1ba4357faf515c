"""(spec, what is there) -> plan. Pure: nothing here calls an engine."""
