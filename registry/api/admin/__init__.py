"""The admin API: who may do what, changed over HTTP or, by the same table, on the data itself."""
