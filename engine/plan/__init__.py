"""What a plan is: stages, nodes, keys. It knows no particular stage."""
