"""The experiments of the paper, each a function (Secs. III and V)."""
