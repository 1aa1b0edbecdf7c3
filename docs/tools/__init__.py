"""What is written beside the documents: names in Prometheus, the dashboard."""
