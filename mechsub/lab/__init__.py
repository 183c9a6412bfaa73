"""Commands, cells, findings and pages: everything about an experiment that knows no model."""
