"""From notebooks to a folder of reports."""
