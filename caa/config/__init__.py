"""Settings as data: one row a setting; environment keys, flags, help and documentation are derived from the rows.

`setting` is the row, `kinds` the types, `load` brings values in, `render` writes them out. `relay`, `node` (with
`identity`, `tls_rows` and the rules of `checks`) and `guest` hold the rows; a driver keeps its own in its `settings`.
"""
