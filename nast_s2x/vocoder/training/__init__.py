"""Training of unit vocoders."""
