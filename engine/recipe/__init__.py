"""Text -> Recipe: reading, composing, validating one YAML file."""
