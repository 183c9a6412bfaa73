"""Commands, cells, findings and pages: the laboratory round the instrument. It knows no model."""
