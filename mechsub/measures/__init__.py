"""What is measured of models: one noun a file."""
