"""CRS Engine: picks one content out of the candidates of all services."""
