"""Stand-ins for what a machine does not have: small models and a few rows, for `adapt rehearse`.

A stand-in has the shape of the real thing (architecture, processor, image geometry, chat format,
columns, types) and none of its content. It is an ordinary folder or table, so its digests are in
every key: what a rehearsal makes is never taken for the result of a run.
"""
